"""Signals reach the event loop, whatever it does: the first one stops, the second one hurries, others are only noted."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from dsv4_serve.entrypoint import early_signals
from dsv4_serve.entrypoint.supervisor import stop_signals
from dsv4_serve.entrypoint.supervisor.stop_signals import StopSignals, first_of, handled

NUMBERS = (*early_signals.STOP, *early_signals.HARMLESS)


@pytest.fixture(autouse=True)
def _unchanged() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    early_signals.take()
    for number, handler in before.items():
        signal.signal(number, handler)


def state(signals: StopSignals) -> tuple[bool, bool, bool]:
    return signals.stop.is_set(), signals.hurry.is_set(), signals.by_person


def received(*numbers: int) -> tuple[bool, bool, bool]:
    async def whole() -> tuple[bool, bool, bool]:
        with handled() as signals:
            for number in numbers:
                signal.raise_signal(number)
                await asyncio.sleep(0.01)
            return state(signals)

    return asyncio.run(whole())


@pytest.mark.parametrize(
    ("numbers", "seen"),
    [
        ((), (False, False, False)),
        ((signal.SIGTERM,), (True, False, False)),
        ((signal.SIGHUP,), (True, False, False)),
        ((signal.SIGQUIT,), (True, False, False)),
        ((signal.SIGINT,), (True, False, True)),
        ((signal.SIGTERM, signal.SIGTERM), (True, True, False)),
        ((signal.SIGINT, signal.SIGTERM), (True, True, True)),
        ((signal.SIGTERM, signal.SIGINT), (True, True, True)),
        ((signal.SIGUSR1, signal.SIGUSR2), (False, False, False)),
        ((signal.SIGTERM, signal.SIGALRM), (True, False, False)),
    ],
)
def test_the_first_one_stops_and_the_second_one_hurries(numbers: tuple[int, ...], seen: tuple[bool, ...]) -> None:
    assert received(*numbers) == seen


def test_one_that_stops_nothing_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    received(signal.SIGUSR1)
    assert caplog.messages == ["note: SIGUSR1 is ignored; SIGTERM stops the replica."]


def test_signals_before_the_loop_count_and_are_not_counted_again() -> None:
    early_signals.catch()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert received() == (True, True, True)
    assert received() == (False, False, False)


def test_a_loop_that_sleeps_is_woken() -> None:
    """Another thread takes the signal from the kernel; Python runs the handler in this one, which sleeps in the loop."""

    async def whole() -> float:
        with handled() as signals:
            threading.Timer(0.05, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)).start()
            began = time.monotonic()
            await asyncio.wait_for(signals.stop.wait(), 20)
            return time.monotonic() - began

    assert asyncio.run(whole()) < 10


def test_afterwards_the_status_is_decided_and_signals_change_nothing() -> None:
    async def whole() -> int:
        before = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(before)
        with handled():
            during = signal.set_wakeup_fd(-1)
            signal.set_wakeup_fd(during, warn_on_full_buffer=False)
        after = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(after)
        assert during != before
        assert after == before
        return after

    asyncio.run(whole())
    assert all(signal.getsignal(number) is signal.SIG_IGN for number in NUMBERS)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.raise_signal(number)


def test_a_burst_fills_no_pipe_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    async def whole() -> tuple[bool, bool, bool]:
        with handled() as signals:
            for _ in range(2000):
                signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(signals.stop.wait(), 20)
            return state(signals)

    assert asyncio.run(whole()) == (True, False, False)
    assert "Exception ignored" not in capfd.readouterr().err


def test_the_first_of_several_ends_a_wait_and_tasks_go_on() -> None:
    async def whole() -> tuple[bool, bool]:
        task, cancelled = asyncio.create_task(asyncio.sleep(60)), asyncio.Event()

        async def other() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        await asyncio.wait_for(first_of(task, other(), asyncio.sleep(0.01)), 20)
        await asyncio.sleep(0)
        running = not task.done()
        task.cancel()
        return running, cancelled.is_set()

    assert asyncio.run(whole()) == (True, True)


def test_a_wait_that_is_cancelled_cancels_what_it_began() -> None:
    async def whole() -> bool:
        cancelled = asyncio.Event()

        async def other() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        wait = asyncio.create_task(first_of(other()))
        await asyncio.sleep(0.01)
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
        await asyncio.sleep(0)
        return cancelled.is_set()

    assert asyncio.run(whole())


def test_the_ends_of_the_pipe_do_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple] = []
    original = stop_signals.socket.socketpair

    def pair() -> tuple:
        made.append(original())
        return made[-1]

    async def whole() -> None:
        monkeypatch.setattr(stop_signals.socket, "socketpair", pair)
        with handled():
            monkeypatch.undo()
            assert [end.getblocking() for end in made[0]] == [False, False]
        assert [end.fileno() for end in made[0]] == [-1, -1]

    asyncio.run(whole())
