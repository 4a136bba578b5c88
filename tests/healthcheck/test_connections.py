"""Idle connections to the health port: they keep no probe out, and take no file descriptors from the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dsv4_serve.healthcheck import connections
from dsv4_serve.healthcheck.app import health_app
from dsv4_serve.healthcheck.server import serving
from dsv4_serve.healthcheck.state import Health
from tests.support.patience import slowness

GET = b"GET /livez HTTP/1.1\r\nHost: replica\r\n\r\n"
HOST = "127.0.0.1"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.contextmanager
def open_files(most: int) -> Iterator[None]:
    """Let this process open only so many files meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.asynccontextmanager
async def idle(port: int, count: int) -> AsyncIterator[list[Connection]]:
    """So many connections, one after the other, that send nothing."""
    made = [await asyncio.open_connection(HOST, port) for _ in range(count)]
    try:
        yield made
    finally:
        for _, writer in made:
            writer.close()


async def status(connection: Connection) -> bytes:
    """The first bytes of the answer to one request; none where the connection was closed."""
    reader, writer = connection
    try:
        writer.write(GET)
        return (await reader.read(65536))[:12]
    except ConnectionError:
        return b""


def test_above_the_limit_the_connection_that_is_idle_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS", 8)

    async def whole() -> list[bytes]:
        async with serving(health_app(Health()), HOST, 0) as port, idle(port, 8) as first:
            assert await status(first[0]) == b"HTTP/1.1 200"  # used, so it is no longer the oldest
            async with idle(port, 3) as more:
                assert await status(more[-1]) == b"HTTP/1.1 200"
                return [await status(connection) for connection in first]

    assert asyncio.run(whole()) == [b"HTTP/1.1 200", b"", b"", b"", *[b"HTTP/1.1 200"] * 4]


def test_a_request_in_flight_is_not_the_one_that_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS", 4)

    async def whole() -> bytes:
        began, release = asyncio.Event(), asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            began.set()
            await release.wait()
            await health_app(Health())(scope, receive, send)

        async with serving(slow, HOST, 0) as port:
            connection = await asyncio.open_connection(HOST, port)
            answer = asyncio.create_task(status(connection))
            await began.wait()
            async with idle(port, 12):
                await asyncio.sleep(0.1 * slowness(5))
                release.set()
                return await answer

    assert asyncio.run(whole()) == b"HTTP/1.1 200"


@pytest.mark.parametrize(("files", "most"), [(64, 16), (1024, 256), (20000, 512)])
def test_connections_take_a_quarter_of_the_files_at_most(files: int, most: int) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < files:
        pytest.skip("this host does not allow as many open files")
    with open_files(files):
        assert connections.limit() == most


def test_without_a_file_descriptor_a_probe_is_answered_once_an_idle_connection_made_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Others take every file descriptor that is left: the limit of connections alone does not help."""

    async def whole() -> bytes:
        async with serving(health_app(Health()), HOST, 0) as port, idle(port, 10):
            await asyncio.to_thread(int)  # imports the threads while there are files
            probe = socket.socket()
            probe.settimeout(30)  # idle connections last 60 s
            highest = max(probe.fileno(), 64)
            with open_files(highest + 1), contextlib.ExitStack() as taken:
                with contextlib.suppress(OSError):
                    while True:
                        taken.enter_context(open("/dev/null"))  # noqa: PTH123
                probe.connect((HOST, port))
                probe.sendall(GET)
                answer = await asyncio.to_thread(probe.recv, 12)
            probe.close()
            return answer

    caplog.set_level(logging.INFO)
    assert asyncio.run(asyncio.wait_for(whole(), 60 * slowness())) == b"HTTP/1.1 200"
    assert [record for record in caplog.records if record.name == "asyncio" and record.levelno > logging.INFO] == []


def test_an_error_that_no_room_mends_is_not_swallowed() -> None:
    class Broken:
        def fileno(self) -> int:
            raise OSError(errno.EBADF, "gone")

        def gettimeout(self) -> float:
            return 0.0

        def accept(self) -> None:
            raise OSError(errno.EBADF, "gone")

    async def whole() -> None:
        await connections.accept(Broken(), lambda: None, set())  # type: ignore[arg-type,return-value]

    with pytest.raises(OSError, match="gone"):
        asyncio.run(asyncio.wait_for(whole(), 10))


def test_an_answer_on_a_connection_that_is_kept_does_not_wait_for_an_acknowledgement() -> None:
    async def whole() -> list[float]:
        took = []
        async with serving(health_app(Health()), HOST, 0) as port, idle(port, 1) as kept:
            for _ in range(30):
                began = time.monotonic()
                kept[0][1].write(GET)
                head = await kept[0][0].readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await kept[0][0].readexactly(length)
                took.append(time.monotonic() - began)
        return took

    assert min(asyncio.run(whole())[1:]) < 0.002 * slowness()


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET /livez HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],  # 65 bytes
        [b"GET /livez HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n"],
        [b"POST /livez HTTP/1.1\r\nHost: r\r\nContent-Length: 5\r\n\r\n", b"abcdeXX\r\n\r\n"],
        [GET, b"\x16\x03\x01\r\n\r\n"],
        [GET + b"\x16\x03\x01\r\n\r\n"],
        [b"GET / HTTP/1.1\r\n\r\n"],
        [b"GET /livez HTTP/1.1\r\nHost: r\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", b"abc"],
        [b"CONNECT r:1 HTTP/1.1\r\nHost: r\r\n\r\n", b"abc"],
    ],
)
def test_a_broken_request_writes_nothing_to_the_log(pieces: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    async def whole() -> None:
        async with serving(health_app(Health()), HOST, 0) as port:
            for _ in range(3):
                async with idle(port, 1) as made:
                    for piece in pieces:
                        made[0][1].write(piece)
                        await asyncio.sleep(0.05)
            assert await status(await asyncio.open_connection(HOST, port)) == b"HTTP/1.1 200"

    asyncio.run(whole())
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []
