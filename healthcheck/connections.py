"""
The connections of the health server: how many there are, how long each may last, and which one makes room.

Anyone can connect, as the probes have no key. A client that opens connections and leaves them idle must neither keep a
probe out nor use up the file descriptors with which the supervisor watches vLLM.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import Callable
from collections.abc import Set as AbstractSet

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTION_SECONDS = 60.0
"""The longest connection; one with half a request would hold a file descriptor for ever."""
CONNECTIONS = 512
"""The most connections at once; fewer where the limit of open files is low."""
FILES_SHARE = 4  # one of so many open files may be a connection
PAUSE = 0.1  # seconds until the next attempt where no file descriptor is left
_TRANSIENT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)


class HealthConnection(H11Protocol):
    """h11 rather than httptools: it bounds a request's head (16 KiB)."""

    used = 0.0
    """When its last bytes came, on the loop's clock."""

    @property
    def busy(self) -> bool:
        """Whether a request on it has no answer yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start its time."""
        super().connection_made(transport)
        self.used = self.loop.time()
        self._last_call = self.loop.call_later(CONNECTION_SECONDS, self.shutdown)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop its time."""
        self._last_call.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note that it is in use."""
        self.used = self.loop.time()
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Refuse a broken request; where its answer has begun already, only close."""
        if self.busy:
            self.cycle.disconnected = True  # a broken body: what the application sends now goes nowhere
        else:
            with contextlib.suppress(h11.LocalProtocolError):  # the answer was sent before the body broke
                super().send_400_response(msg)
        self.transport.close()

    def drop(self) -> None:
        """Close it at once."""
        self.connections.discard(self)
        self.transport.abort()


async def accept(
    listening: socket.socket, connection: Callable[[], HealthConnection], connections: AbstractSet[HealthConnection]
) -> None:
    """
    Accept connections one by one until it is cancelled; above the limit, the one that is idle longest makes room.

    asyncio's own server accepts a whole backlog before it handles any of them, and stops for a second when no file
    descriptor is left.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, _ = await loop.sock_accept(listening)
        except OSError as error:
            if error.errno not in _TRANSIENT:
                raise
            if connections and error.errno != errno.ECONNABORTED:
                _oldest(connections).drop()
            await asyncio.sleep(PAUSE)
            continue
        while len(connections) >= limit():
            _oldest(connections).drop()
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the head would wait for the body's ACK
            await loop.connect_accepted_socket(connection, accepted)
        except OSError:  # closed by the client already
            accepted.close()


def limit() -> int:
    """Return the most connections at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(CONNECTIONS, soft // FILES_SHARE))


def _oldest(connections: AbstractSet[HealthConnection]) -> HealthConnection:
    return min(connections, key=lambda each: (each.busy, each.used))
