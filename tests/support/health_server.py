"""A real health server over a state that a test sets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dsv4_serve.healthcheck.app import health_app
from dsv4_serve.healthcheck.server import serving
from dsv4_serve.healthcheck.state import Health
from tests.support.patience import slowness


@contextmanager
def served(health: Health, port: int = 0, host: str = "127.0.0.1") -> Iterator[str]:
    """The address of a health server in a thread."""
    listening, running = threading.Event(), {}

    async def serve() -> None:
        stop = asyncio.Event()
        async with serving(health_app(health), host, port) as taken:
            running.update(port=taken, stop=lambda: loop.call_soon_threadsafe(stop.set))
            loop = asyncio.get_running_loop()
            listening.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert listening.wait(10 * slowness())
    try:
        yield f"http://{host}:{running['port']}/"
    finally:
        running["stop"]()
        thread.join()
