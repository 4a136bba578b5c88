"""
Signals to stop: the first one drains, the second one hurries.

Python's own handlers are used and not those of asyncio, whose signal numbers share a pipe with every wake-up of the
loop: when a thread fills that pipe, signals are lost (CPython 3.11). The pipe here carries nothing but signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Iterator
from types import FrameType

from .. import early_signals

log = logging.getLogger(__name__)


class StopSignals:
    """The signals received so far."""

    def __init__(self) -> None:
        self.stop, self.hurry = asyncio.Event(), asyncio.Event()
        self.by_person = False
        """Whether Ctrl-C was among them: then no balancer has to notice the stop first."""

    def received(self, number: int) -> None:
        """Record one signal; those that stop nothing are only logged."""
        if number not in early_signals.STOP:
            log.info(f"note: {early_signals.name(number)} is ignored; SIGTERM stops the replica.")
            return
        if self.stop.is_set():
            self.hurry.set()
        self.by_person = self.by_person or number == signal.SIGINT
        self.stop.set()


@contextlib.contextmanager
def handled() -> Iterator[StopSignals]:
    """Record signals during the block, and those before it; afterwards they are ignored: the status is decided."""
    loop, signals = asyncio.get_running_loop(), StopSignals()

    def deliver(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(signals.received, number)

    with _waking(loop):
        for number in (*early_signals.STOP, *early_signals.HARMLESS):
            signal.signal(number, deliver)
        for number in early_signals.take():
            signals.received(number)
        try:
            yield signals
        finally:
            for number in (*early_signals.STOP, *early_signals.HARMLESS):
                signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _waking(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let every signal wake the loop: Python runs handlers in the main thread, which may sleep in the loop."""
    ours, pythons = socket.socketpair()
    with ours, pythons:
        for end in (ours, pythons):
            end.setblocking(False)
        loop.add_reader(ours, ours.recv, 4096)
        before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(ours)


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Wait for the first of several; tasks and futures keep running, while coroutines started here are cancelled."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for awaitable, task in zip(awaitables, tasks, strict=True):
            if awaitable is not task:
                task.cancel()
