"""Serve the health application in the running event loop: uvicorn, without its signal handlers and logs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn

from ..entrypoint.errors import ConfigError
from ..entrypoint.listen import BACKLOG, HEALTH_HOST, HEALTH_PORT, CannotListen, listener
from .app import App
from .connections import HealthConnection, accept


class PortTaken(ConfigError):
    """The health server cannot listen where it should; the message has address, reason and remedy."""


@contextlib.asynccontextmanager
async def serving(app: App, host: str = HEALTH_HOST, port: int = HEALTH_PORT) -> AsyncIterator[int]:
    """
    Serve `app` during the block, and yield the port (0 takes a free one).

    The port is bound first, so that clients that connect early are answered as soon as the loop runs.
    Raise PortTaken. Children do not inherit the socket.
    """
    listening = _listen(host, port)
    config = uvicorn.Config(
        app,
        http=HealthConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # broken requests are the client's fault
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=1,
    )
    config.load()
    server = _Server(config)
    connections: set[HealthConnection] = server.server_state.connections  # type: ignore[assignment]

    def connection() -> HealthConnection:
        return HealthConnection(config, server.server_state, {})

    accepting = asyncio.create_task(accept(listening, connection, connections), name="health connections")
    task = asyncio.create_task(server.serve([]), name="health server")  # it has no socket: `accept` has it
    try:
        yield listening.getsockname()[1]
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        listening.close()
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the supervisor."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = listener(host, port)
    except CannotListen as error:
        where, other = f"{host} port {port}", "DSV4_HEALTH_PORT to a free port"
        other = "DSV4_HEALTH_HOST to an address of this host" if error.elsewhere else other
        raise PortTaken(f"the health server cannot listen on {where}: {error}; set {other}.") from None
    listening.setblocking(False)
    return listening
