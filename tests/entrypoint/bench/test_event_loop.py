"""A signal that arrives at any time ends a coroutine and what it began, and is raised by its own handler."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench import event_loop
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.client.local_replica import Stopped
from tests.support.patience import until

LONG = 3600.0


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def began_since(threads: set[threading.Thread]) -> set[threading.Thread]:
    """The threads that are alive and were not; those of other tests may end meanwhile."""
    return {*threading.enumerate()} - threads


@contextmanager
def at_line(number: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """Call `act` before the line with this number of those that the module runs in this thread; yield the numbers."""
    lines = list[int]()

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename != event_loop.__file__:
            return None
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == number:
                sys.settrace(None)
                act()
        return trace

    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(None)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_at_every_line_before_the_coroutine_waits_a_signal_ends_it() -> None:
    number, reached = 0, True
    while reached:
        number += 1
        ends, threads = list[str](), {*threading.enumerate()}

        async def work(ends: list[str] = ends) -> None:
            ends.append("began")
            asyncio.get_running_loop().call_later(0.2, interrupt)  # where there are fewer lines
            try:
                await asyncio.sleep(LONG)
            finally:
                ends.append("ended")

        with pytest.raises(Stopped, match="SIGINT"), local_replica.stops_raise(), at_line(number, interrupt) as lines:
            event_loop.run(work())
        assert ends in ([], ["began", "ended"]), (number, lines[-1])
        assert not began_since(threads), (number, lines[-1])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, (number, lines[-1])
        reached = len(lines) >= number and ends != ["began", "ended"]
    assert number > 5


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_signal_when_the_coroutine_has_ended_is_raised_too() -> None:
    async def work() -> str:
        return "done"

    with local_replica.stops_raise(), at_line(0, interrupt) as lines:
        assert event_loop.run(work()) == "done"
    for number in range(1, len(lines) + 1):
        with pytest.raises(Stopped), local_replica.stops_raise(), at_line(number, interrupt):
            event_loop.run(work())


def test_signals_that_come_as_soon_as_it_waits_leave_nothing() -> None:
    threads, ended = {*threading.enumerate()}, list[int]()

    async def work() -> None:
        asyncio.get_running_loop().call_soon(interrupt)
        try:
            await asyncio.sleep(LONG)
        finally:
            ended.append(1)

    for _ in range(300):
        with pytest.raises(Stopped), local_replica.stops_raise():
            event_loop.run(work())
    assert len(ended) == 300
    assert not began_since(threads)


def test_what_it_began_has_its_time_to_end_and_is_cancelled_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "_ENDING", 0.2)
    told = list[str]()

    async def side(name: str, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
            told.append(f"{name} ended")
        except asyncio.CancelledError:
            told.append(f"{name} cancelled")
            raise

    async def work() -> str:
        tasks = [asyncio.create_task(side("short", 0.01)), asyncio.create_task(side("long", LONG))]
        await asyncio.sleep(0)
        return f"{len(tasks)} left"

    assert event_loop.run(work()) == "2 left"
    assert told == ["short ended", "long cancelled"]


def test_one_that_cannot_be_cancelled_is_left_when_the_time_to_close_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "_ENDING", 0.05)
    monkeypatch.setattr(event_loop, "CLOSING", 0.1)

    async def stubborn() -> None:
        asyncio.get_running_loop().call_soon(interrupt)
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    began = time.monotonic()
    with pytest.raises(Stopped), local_replica.stops_raise():
        event_loop.run(stubborn())
    assert time.monotonic() - began < 30


def test_an_error_is_passed_on_and_the_handlers_are_back() -> None:
    async def work() -> None:
        raise LookupError("no")

    with local_replica.stops_raise():
        before = {number: signal.getsignal(number) for number in local_replica.STOPS}
        with pytest.raises(LookupError, match="no"):
            event_loop.run(work())
        assert {number: signal.getsignal(number) for number in local_replica.STOPS} == before


def test_signals_without_a_handler_and_other_threads_are_left_alone() -> None:
    told = list[object]()

    async def work() -> object:
        return signal.getsignal(signal.SIGHUP)

    assert event_loop.run(work()) is signal.SIG_DFL
    thread = threading.Thread(target=lambda: told.append(event_loop.run(work())))
    thread.start()
    assert until(lambda: bool(told), 10)
    thread.join()
