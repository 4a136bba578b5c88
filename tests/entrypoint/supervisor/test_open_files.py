"""A supervisor that may open few files, whose health port is flooded with idle connections."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint.client import http
from dsv4_serve.entrypoint.client.errors import OutOfFiles, Unreachable
from dsv4_serve.entrypoint.client.vllm import VllmClient
from dsv4_serve.healthcheck.progress import EngineProgress
from tests.support.patience import slowness
from tests.support.program import executable
from tests.support.replica import replica

FILES = (64, 256)


@pytest.mark.process
@pytest.mark.slow
def test_idle_connections_neither_end_a_replica_nor_make_it_look_hung(tmp_path: Path) -> None:
    grace = 2.0 * slowness(4)
    program = executable(tmp_path / "vllm", "tests.support.stand_in")
    settings = {
        "PROFILE": "demo",
        "MODEL": f"demo={write_checkpoint(tmp_path / 'model')}",
        "DSV4_VLLM": str(program),
        "DSV4_GATE_TOKENS": "8",
        "DSV4_SUPERVISE_POLL": "0.1",
        "DSV4_SUPERVISE_READY_GRACE": "2",
        "DSV4_SUPERVISE_LIVE_GRACE": str(grace),
        "DSV4_SUPERVISE_IDLE_CANARY_EVERY": "0.3",
    }
    with replica(tmp_path / "replica", model_name="stand-in", seconds_to_stop=15, **settings) as running:
        running.until_ready(60)
        _, most = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
        for files in FILES:
            resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (files, most))
            with contextlib.ExitStack() as stack:
                for _ in range(6 * files):
                    address = ("127.0.0.1", running.health_port)
                    with contextlib.suppress(OSError):
                        stack.enter_context(socket.create_connection(address, timeout=5))
                ends = time.monotonic() + 2 * grace
                while time.monotonic() < ends and running.process.poll() is None:
                    assert running.ask("/livez", 10 * slowness())[0] == 200
                    assert len(list(Path(f"/proc/{running.process.pid}/fd").iterdir())) < files
                    time.sleep(0.1)
                assert running.process.poll() is None, running.log_text()[-2000:]
                running.until(running.ready, 10, "ready")
        assert "Traceback" not in running.log_text()
        running.stop(signal.SIGTERM)
        assert running.until_ended(30)[0] == 0


def test_a_poll_without_a_file_descriptor_is_unknown_and_one_without_a_server_is_not() -> None:
    async def poll(port: int) -> Exception:
        client = VllmClient(f"http://127.0.0.1:{port}")
        try:
            await client.counters()
        except Unreachable as error:
            return error
        finally:
            await client.close()
        raise AssertionError("answered")

    async def whole() -> list[type[Exception]]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        found = [type(await poll(port))]
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        client = VllmClient(f"http://127.0.0.1:{port}")
        with contextlib.ExitStack() as taken:
            highest = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, before[1]))
            try:
                with contextlib.suppress(OSError):
                    while True:
                        taken.enter_context(open("/dev/null"))  # noqa: PTH123
                with pytest.raises(Unreachable) as caught:
                    await client.counters()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        await client.close()
        return [*found, type(caught.value)]

    assert asyncio.run(whole()) == [Unreachable, OutOfFiles]


def test_the_cause_is_found_however_deep_it_lies() -> None:
    error = httpx.ConnectError("All connection attempts failed")
    error.__cause__ = RuntimeError("wrapped")
    error.__cause__.__context__ = OSError(23, "Too many open files in system")
    assert isinstance(http.unreachable("u", error), OutOfFiles)
    assert not isinstance(http.unreachable("u", httpx.ConnectError("refused")), OutOfFiles)


def test_time_in_which_nobody_could_look_is_not_counted_against_the_engine() -> None:
    progress = EngineProgress(0.0)
    progress.lost(1.0)
    for now in (30.0, 90.0, 200.0):
        progress.unknown(now)
        assert progress.at == now
