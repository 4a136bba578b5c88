"""The health server on real sockets."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.healthcheck import connections
from dsv4_serve.healthcheck.app import health_app
from dsv4_serve.healthcheck.server import PortTaken, serving
from dsv4_serve.healthcheck.state import Health
from tests.support.patience import slowness

GET = b"GET /livez HTTP/1.1\r\nHost: replica\r\n\r\n"
HOST = "127.0.0.1"


def served(use: Callable[[int], Coroutine[Any, Any, Any]], host: str = HOST) -> Any:
    """Serve a replica that starts, hand its port to `use`, return what that returns."""

    async def whole() -> Any:
        async with serving(health_app(Health()), host, 0) as port:
            return await use(port)

    return asyncio.run(asyncio.wait_for(whole(), 30))


async def get(port: int, request: bytes = GET, host: str = HOST) -> bytes:
    """One request on a connection of its own; what came until a whole answer was there."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        return await _answer(reader)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return head + await reader.readexactly(length)


def test_it_answers_inside_the_block_and_is_gone_after_it() -> None:
    async def whole() -> int:
        async with serving(health_app(Health()), HOST, 0) as port:
            answer = await get(port)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"livez check passed\n")
            assert b"\r\nserver:" not in answer.lower()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)
        async with serving(health_app(Health()), HOST, port) as again:
            assert again == port
            assert (await get(port)).startswith(b"HTTP/1.1 200")
        return port

    assert asyncio.run(whole()) > 0


def test_a_taken_port_is_named_with_the_setting_that_changes_it() -> None:
    with socket.create_server((HOST, 0)) as holder:
        port = holder.getsockname()[1]

        async def whole() -> None:
            async with serving(health_app(Health()), HOST, port):
                pass

        with pytest.raises(PortTaken) as caught:
            asyncio.run(whole())
    assert isinstance(caught.value, ConfigError)
    said = f"the health server cannot listen on {HOST} port {port}: Address already in use; set DSV4_HEALTH_PORT to a free port."
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("host", "port", "other"),
    [
        (HOST, 65536, "DSV4_HEALTH_PORT"),
        (HOST, -1, "DSV4_HEALTH_PORT"),
        ("192.0.2.1", 0, "DSV4_HEALTH_HOST"),
        ("no such host", 0, "DSV4_HEALTH_HOST"),
    ],
)
def test_where_nobody_can_listen_is_the_same_error_with_the_setting_to_change(host: str, port: int, other: str) -> None:
    async def whole() -> None:
        async with serving(health_app(Health()), host, port):
            pass

    with pytest.raises(PortTaken, match=f"the health server cannot listen on .*; set {other} to"):
        asyncio.run(whole())


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")
def test_the_ipv6_wildcard_answers_both_families() -> None:
    async def both(port: int) -> list[bytes]:
        return [(await get(port, host=host))[:12] for host in ("::1", HOST)]

    assert served(both, "::") == [b"HTTP/1.1 200"] * 2


def test_a_client_that_connects_before_the_loop_goes_on_is_answered_later() -> None:
    async def blocked(port: int) -> bytes:
        with socket.create_connection(
            (HOST, port), timeout=5 * slowness()
        ) as early:  # a blocking call: the loop stands still
            early.sendall(GET)
            await asyncio.sleep(0)
            return await asyncio.to_thread(early.recv, 12)

    assert served(blocked) == b"HTTP/1.1 200"


def test_the_supervisors_signal_handlers_stay_its_own() -> None:
    arrived: list[int] = []

    async def signalled(port: int) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, arrived.append, signal.SIGTERM)
        await get(port)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert (await get(port)).startswith(b"HTTP/1.1 200")

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    served(signalled)
    assert arrived == [signal.SIGTERM]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_an_error_inside_the_block_comes_out_as_itself() -> None:
    async def failing(_port: int) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        served(failing)


def test_children_do_not_inherit_the_port() -> None:
    async def whole() -> None:
        async with serving(health_app(Health()), HOST, 0) as port:
            child = subprocess.Popen(["sleep", "30"], close_fds=False)
        try:
            async with serving(health_app(Health()), HOST, port) as again:
                assert again == port
        finally:
            child.kill()
            child.wait()

    asyncio.run(whole())


def test_200_connections_are_kept_and_answered_at_once() -> None:
    async def crowd(port: int) -> list[bytes]:
        together = asyncio.Barrier(200)

        async def one() -> bytes:
            reader, writer = await asyncio.open_connection(HOST, port)
            await together.wait()
            answers = b""
            for _ in range(5):
                writer.write(GET)
                answers += (await _answer(reader))[:12]
            writer.close()
            return answers

        return await asyncio.gather(*(one() for _ in range(200)))

    assert served(crowd) == [b"HTTP/1.1 200" * 5] * 200


def test_pipelined_requests_are_answered_in_order() -> None:
    async def both(port: int) -> list[bytes]:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(GET + GET.replace(b"livez", b"readyz"))
        answers = [(await _answer(reader))[:12] for _ in range(2)]
        writer.close()
        return answers

    assert served(both) == [b"HTTP/1.1 200", b"HTTP/1.1 503"]


async def _half_requests(port: int) -> AsyncIterator[asyncio.StreamWriter]:
    for _ in range(50):
        _reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(GET[:20])
        yield writer


def test_clients_that_send_half_a_request_block_no_other() -> None:
    async def slow(port: int) -> float:
        writers = [writer async for writer in _half_requests(port)]
        began = time.monotonic()
        for _ in range(20):
            assert (await get(port)).startswith(b"HTTP/1.1 200")
        took = time.monotonic() - began
        for writer in writers:
            writer.close()
        return took

    assert served(slow) < 2 * slowness()


def test_half_a_request_does_not_hold_a_connection_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTION_SECONDS", 0.3)

    async def waiting(port: int) -> tuple[bytes, float]:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(GET[:20])
        began = time.monotonic()
        rest = await reader.read()
        writer.close()
        return rest, time.monotonic() - began

    rest, took = served(waiting)
    assert rest == b""
    assert 0.2 < took < 3 * slowness()


def test_open_connections_do_not_delay_the_end() -> None:
    async def whole() -> float:
        async with serving(health_app(Health()), HOST, 0) as port:
            silent = await asyncio.open_connection(HOST, port)
            half = await asyncio.open_connection(HOST, port)
            half[1].write(GET[:20])
            kept = await asyncio.open_connection(HOST, port)
            kept[1].write(GET)
            await _answer(kept[0])
            began = time.monotonic()
        took = time.monotonic() - began
        for _reader, writer in (silent, half, kept):
            writer.close()
        return took

    assert asyncio.run(whole()) < 2 * slowness()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: r\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: r\r\nX: " + b"a" * 2**20 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: r\r\n" + b"X: y\r\n" * 2**17 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 4,  # a TLS client
        b"\r\n" * 2**16,
        b"GET /\xff HTTP/1.1\r\nHost: r\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: r\r\nContent-Length: 99999999999\r\n\r\n" + b"b" * 2**20,
        b"GET /livez HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /livez HTTP/1.1\r\nHost: r\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=["line", "header", "headers", "tls", "newlines", "not-ascii", "version", "body", "chunks", "websocket"],
)
def test_a_hostile_request_is_refused_without_trouble(request_bytes: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    async def hostile(port: int) -> bytes:
        reader, writer = await asyncio.open_connection(HOST, port)
        answer = b""
        try:
            writer.write(request_bytes)
            answer = await asyncio.wait_for(reader.read(12), 5)
        except ConnectionError:  # closed on us while we were still sending
            pass
        writer.close()
        assert (await get(port)).startswith(b"HTTP/1.1 200")
        return answer

    assert served(hostile) in (b"HTTP/1.1 400", b"HTTP/1.1 405", b"HTTP/1.1 200", b"")
    assert capfd.readouterr() == ("", "")
