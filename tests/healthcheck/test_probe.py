"""`dsv4 probe` against real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from dsv4_serve.healthcheck.app import health_app
from dsv4_serve.healthcheck.probe import probe
from dsv4_serve.healthcheck.server import serving
from dsv4_serve.healthcheck.state import Finding, Health
from tests.support.patience import slowness

READY = Health(
    phase="ready", engine=1, generated_after=5.0, ready_after=6.0, gate=Finding("good"), corruption=Finding("good")
)


def ask(group: str, port: str | int, host: str = "127.0.0.1", timeout: float = 5) -> tuple[int, str]:
    return probe(group, host, int(port), timeout)


@contextlib.contextmanager
def replica(health: Health, host: str = "127.0.0.1") -> Iterator[str]:
    """A health server in a thread of its own; its port as a word."""
    up, over = threading.Event(), threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        async with serving(health_app(health), host, 0) as port:
            ports.append(port)
            up.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(10 * slowness())
        yield str(ports[0])
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def saying(answer: bytes, *, close: bool = True) -> Iterator[str]:
    """Something else on a port: it takes one connection and says `answer`."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def one() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(1000)
                for start in range(0, len(answer), 65536):
                    connection.sendall(answer[start : start + 65536])
                if not close:
                    over.wait(20 * slowness())

        thread = threading.Thread(target=one)
        thread.start()
        try:
            yield str(listener.getsockname()[1])
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("group", ["startup", "live", "ready"])
def test_a_replica_that_serves_is_ok(group: str) -> None:
    with replica(READY) as port:
        assert ask(group, port) == (0, "ok")


def test_the_checks_that_fail_are_listed_line_by_line() -> None:
    with replica(Health(phase="resolving")) as port:
        status, said = ask("ready", port)
        assert ask("live", port) == (0, "ok")
    assert status == 1
    lines = said.splitlines()
    assert [line.split()[0] for line in lines] == ["[-]started", "[-]generation", "[-]draft-gate", "[-]corruption"]
    assert lines[0].startswith("[-]started failed: resolving: ")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")
def test_an_ipv6_host_is_probed_and_named() -> None:
    with replica(READY, "::1") as port:
        assert ask("live", port, "::1") == (0, "ok")
    assert ask("live", port, "::1")[1].startswith(f"nothing listens on [::1]:{port}; ")


def test_without_a_server_it_says_which_address_it_probed() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        status, said = ask("ready", port)
    assert status == 1
    assert said.startswith(f"nothing listens on 127.0.0.1:{port}; ")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 64, ""])
def test_an_invalid_host_is_reported_in_one_sentence(host: str) -> None:
    status, said = ask("ready", 1, host)
    assert status == 1
    assert "\n" not in said


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_a_server_that_hangs_is_given_up_in_time(begun: bytes) -> None:
    with saying(begun, close=False) as port:
        began = time.monotonic()
        status, said = ask("ready", port, timeout=0.3)
        took = time.monotonic() - began
    assert (status, took < 2 * slowness()) == (1, True)
    assert said.startswith(f"127.0.0.1:{port} did not answer within 0.3 s; ")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\x00",
        b"HTTP/1.1",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nit works",
        b"HTTP/1.1 200 OK\r\n\r\nlivez check passed\n",
        b"HTTP/1.1 404 Not Found\r\n\r\nreadyz check passed\n",
        b"HTTP/1.1 503 Service Unavailable\r\n\r\nreadyz check passed\n",
        b"HTTP/1.1 200 OK\r\n\r\nreadyz check failed\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2**22,
    ],
    ids=["nothing", "bytes", "cut", "empty", "other", "other-probe", "404", "503-passed", "200-failed", "endless"],
)
def test_another_server_on_the_port_is_never_ok(answer: bytes) -> None:
    with saying(answer) as port:
        status, said = ask("ready", port)
    assert status == 1
    assert f"127.0.0.1:{port}" in said


def test_it_imports_next_to_nothing() -> None:
    """HEALTHCHECK starts a process every few seconds: 100 ms is its budget."""
    code = "import sys; before = set(sys.modules); import dsv4_serve.healthcheck.probe; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "argparse",
        "asyncio",
        "http.client",
        "httpx",
        "json",
        "prometheus_client",
        "ssl",
        "urllib.request",
        "uvicorn",
    }
    assert not heavy & set(done.stdout.split())
