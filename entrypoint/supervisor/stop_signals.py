"""Signals to stop: the first one drains, the second one hurries."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Iterator

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class StopSignals:
    """The signals received so far."""

    def __init__(self) -> None:
        self.stop, self.hurry = asyncio.Event(), asyncio.Event()
        self.by_person = False
        """Whether Ctrl-C was among them: then no balancer has to notice the stop first."""

    def received(self, number: int) -> None:
        """Record one signal."""
        if self.stop.is_set():
            self.hurry.set()
        self.by_person = self.by_person or number == signal.SIGINT
        self.stop.set()


@contextlib.contextmanager
def handled() -> Iterator[StopSignals]:
    """Record signals during the block; afterwards they are ignored, as the exit status is decided."""
    loop, signals = asyncio.get_running_loop(), StopSignals()
    for number in NUMBERS:
        loop.add_signal_handler(number, signals.received, number)
    try:
        yield signals
    finally:
        for number in NUMBERS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Wait for the first of several; tasks and futures keep running, while coroutines started here are cancelled."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for awaitable, task in zip(awaitables, tasks, strict=True):
            if awaitable is not task:
                task.cancel()
