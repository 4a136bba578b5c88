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


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns; a signal ends it and what it began."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        return asyncio.run_coroutine_threadsafe(work, loop).result()
    finally:
        concurrent.futures.wait([asyncio.run_coroutine_threadsafe(_end(), loop)], CLOSING)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSING)
        if not thread.is_alive():
            loop.close()


async def _end() -> None:
    """Cancel what still runs, and wait until its connections are closed."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
