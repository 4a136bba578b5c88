"""
Run a coroutine so that a signal ends it, and is raised only then.

Within an event loop a handler may raise in a callback, whose error is logged and lost, or in a library, which turns it
into another error. So a signal cancels the coroutine, and its own handler is called after the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

from ..client.local_replica import STOPS

T = TypeVar("T")
CLOSING = 5.0
"""Seconds to close what still runs after a signal."""
_ENDING = 1.0
"""Seconds of them until tasks are cancelled that did not end with the coroutine."""
_SIGNALS = (*STOPS, signal.SIGALRM)
_BYTES = 4096  # one for each signal


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns; a signal ends it and what it began."""
    with contextlib.closing(asyncio.new_event_loop()) as loop, _signals_kept(loop) as stop:
        return loop.run_until_complete(_ended(work, stop))


@contextlib.contextmanager
def _signals_kept(loop: asyncio.AbstractEventLoop) -> Iterator[asyncio.Event]:
    """Yield what is set by a signal that has a handler; that one is called when the block has ended."""
    stop, received = asyncio.Event(), list[int]()

    def keep(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    def wake(reader: socket.socket) -> None:
        if not taken.isdisjoint(reader.recv(_BYTES)):
            stop.set()

    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS if in_main}
    taken = {number for number, handler in handlers.items() if callable(handler)}
    try:
        with contextlib.ExitStack() as restoring:
            if taken:  # not by loop.add_signal_handler(), after which each would have its default for a moment
                reader, writer = map(restoring.enter_context, socket.socketpair())
                writer.setblocking(False)
                loop.add_reader(reader, wake, reader)
                restoring.callback(loop.remove_reader, reader)
                restoring.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer.fileno()))
            for number in taken:
                restoring.callback(signal.signal, number, handlers[number])
                signal.signal(number, keep)
            yield stop
    finally:
        for first in received[:1]:
            signal.raise_signal(first)


async def _ended(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T:
    """Run it, then wait until all tasks have ended and their connections are closed."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    stopped.cancel()
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        _, alive = await asyncio.wait(others, timeout=_ENDING)  # anyio complains if its own are cancelled
        for one in alive:
            one.cancel()
        if alive:
            await asyncio.wait(alive, timeout=CLOSING - _ENDING)
    return task.result()
