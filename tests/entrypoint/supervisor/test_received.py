"""Bytes that processes receive and write, counted by the kernel, while real ones download."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint.supervisor import received
from tests.support.patience import slowness
from tests.support.replica import replica

pytestmark = pytest.mark.process

RECEIVE = """
import socket, sys, time
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
buffer = bytearray(1 << 16)
while connection.recv_into(buffer):
    pass
time.sleep(600)
"""
DOWNLOADING = """#!{python}
import socket, sys, time
print("(EngineCore pid=1) INFO 11-22 06:00:00 [default_loader.py:1] Loading weights", flush=True)
print("(EngineCore pid=1) INFO 11-22 06:00:00 [gpu_model_runner.py:1] Starting to load model x...", flush=True)
connection = socket.create_connection(("127.0.0.1", {port}))
buffer = bytearray(1 << 16)
while connection.recv_into(buffer):
    pass
time.sleep(600)
"""


@contextmanager
def sender(seconds: float, rate: int = 20_000_000) -> Iterator[int]:
    """Send to whoever connects for so long, then nothing, with the connection open."""
    end = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def send() -> None:
            connection, _ = listening.accept()
            piece, until = bytes(rate // 20), time.monotonic() + seconds
            with connection:
                while time.monotonic() < until and not end.is_set():
                    connection.sendall(piece)
                    time.sleep(0.05)
                end.wait()

        threading.Thread(target=send, daemon=True).start()
        yield listening.getsockname()[1]
        end.set()


def grows(pid: int, seconds: float) -> int:
    before = received.arrived([pid])
    time.sleep(seconds)
    return received.arrived([pid]) - before


def test_what_recv_takes_is_counted_for_the_process_that_takes_it() -> None:
    with sender(120) as port:
        child = subprocess.Popen([sys.executable, "-c", RECEIVE, str(port)])
        try:
            until = time.monotonic() + 30 * slowness()
            while grows(child.pid, 0.3) < 1 << 20 and time.monotonic() < until:
                pass
            assert grows(child.pid, 1.0) > 1 << 20
            assert grows(os.getpid(), 0.3) < 1 << 20  # the sender receives nothing
        finally:
            child.kill()
            child.wait()


def test_what_a_process_writes_is_counted(tmp_path: Path) -> None:
    before = received.arrived([os.getpid()])
    (tmp_path / "file").write_bytes(bytes(5_000_000))
    # A connection that a test before this one left open may be closed meanwhile, and what it received counts no more.
    assert received.arrived([os.getpid()]) - before >= 4_900_000


def test_a_process_that_has_ended_counts_as_nothing() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert received.arrived([child.pid]) == 0


def test_a_kernel_without_socket_diagnostics_counts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no netlink here")

    monkeypatch.setattr(received.socket, "socket", refused)
    assert list(received.tcp_received()) == []


@pytest.mark.slow
def test_a_start_that_downloads_goes_on_and_one_whose_download_died_is_ended_as_stalled(tmp_path: Path) -> None:
    limit = 2 * slowness(4)  # a busy machine still answers in this time
    with sender(2.5 * limit) as port:
        program = tmp_path / "vllm"
        program.write_text(DOWNLOADING.format(python=sys.executable, port=port))
        program.chmod(0o755)
        settings = {
            "PROFILE": "demo",
            "MODEL": f"demo={write_checkpoint(tmp_path / 'model')}",
            "DSV4_VLLM": str(program),
            "DSV4_SUPERVISE_STALL_LOADING_WEIGHTS": str(limit),
            "DSV4_SUPERVISE_STALL_STARTING": str(10 * limit),
        }
        with replica(tmp_path / "replica", model_name="stand-in", seconds_to_stop=15, **settings) as running:
            running.until(lambda: "loading weights" in running.ask("/startupz")[1], 30, "loading")
            began = time.monotonic()
            status, _ = running.until_ended(60)
            assert time.monotonic() - began > 2 * limit
            assert status == 84
            assert "loading weights: no progress" in running.log_text()
