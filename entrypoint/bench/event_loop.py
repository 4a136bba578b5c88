"""
Run a coroutine in a thread, so that a signal is raised by whoever waits for it.

Within an event loop a handler may raise in a callback, whose error is logged and lost, or in a library, which turns it
into another error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
CLOSING = 5.0
"""Seconds to close what still runs after a signal."""
_ENDING = 1.0
"""Seconds of them until tasks are cancelled that did not end with the coroutine."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns; a signal ends it and what it began."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    running = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return running.result()
    finally:
        running.cancel()
        concurrent.futures.wait([asyncio.run_coroutine_threadsafe(_end(), loop)], CLOSING)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSING)
        if not thread.is_alive():
            loop.close()


async def _end() -> None:
    """Wait until tasks have ended and their connections are closed; anyio complains if its own are cancelled."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        _, alive = await asyncio.wait(others, timeout=_ENDING)
        for task in alive:
            task.cancel()
        await asyncio.gather(*alive, return_exceptions=True)
