"""Run a blocking call in a daemon thread, so that it blocks neither the event loop nor the exit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_background(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> asyncio.Future[T]:
    """
    Return the future of `function(*arguments, **keywords)`.

    asyncio.to_thread would be enough, but the program waits for its threads at exit.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = function(*arguments, **keywords)
        except Exception as raised:  # raised again where the future is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody is waiting
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, daemon=True).start()
    return future
