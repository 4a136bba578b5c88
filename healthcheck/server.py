"""Serve the health application in the event loop that runs already: uvicorn, without its signal handlers and logs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dsv4_serve.healthcheck.app import App

CONNECTION_SECONDS = 60.0
"""How long a connection lasts at most: one with half a request on it would hold a file descriptor for ever."""
BACKLOG = 1024


class PortTaken(OSError):
    """The health server cannot listen where it should; the message says where, why, and what to change."""


@contextlib.asynccontextmanager
async def serving(app: App, host: str = "0.0.0.0", port: int = 8001) -> AsyncIterator[int]:  # noqa: S104 - probes come from outside the container
    """
    Serve `app` for the length of the block, and yield the port (0 asks for any that is free).

    The port is held before anything else happens: what connects from then on is answered as soon as the loop runs.
    Raise PortTaken. Children do not inherit the socket.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # a broken request is the client's affair
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve([listener]), name="health server")
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the supervisor."""
        yield


class _Connection(H11Protocol):
    """h11 rather than httptools: it bounds a request's head (16 KiB)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._last_call = self.loop.call_later(CONNECTION_SECONDS, self.shutdown)

    def connection_lost(self, exc: Exception | None) -> None:
        self._last_call.cancel()
        super().connection_lost(exc)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except (OSError, OverflowError) as error:
        where = f"{host} port {port}"
        raise PortTaken(
            f"the health server cannot listen on {where}: {_why(error)}; set DSV4_HEALTH_PORT to a free port."
        ) from None
    listener.setblocking(False)
    return listener


def _why(error: OSError | OverflowError) -> str:
    number = getattr(error, "errno", None) or 0
    return os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error)
