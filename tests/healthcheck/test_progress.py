"""Progress of an engine: the state machine, and real vLLM with its engine stopped in a long prefill."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.client.counters import Counters
from dsv4_serve.entrypoint.client.local_replica import ServeProcess
from dsv4_serve.entrypoint.client.vllm import VllmClient
from dsv4_serve.entrypoint.procfs import descendants
from dsv4_serve.healthcheck.progress import EngineProgress
from tests.support.program import argv_of

LONG = "long " * 3200  # 16,000 tokens, which are 1000 chunks of the server `broken`
IDLE = Counters(steps=7, generated=9)
RUNNING = replace(IDLE, running=2, waiting=1, kv_usage=0.1)


def test_before_the_first_poll_there_is_no_work():
    progress = EngineProgress(5.0)
    assert (progress.at, progress.busy, progress.work) == (5.0, False, "none")


def test_idle_and_answering_is_progress():
    progress = EngineProgress(0.0)
    for now in (1.0, 2.0, 50.0):
        progress.feed(now, IDLE)
        assert (progress.at, progress.busy, progress.work) == (now, False, "none")


def test_requests_without_movement_are_no_progress():
    progress = EngineProgress(0.0)
    progress.feed(1.0, RUNNING)
    progress.feed(60.0, RUNNING)
    assert (progress.at, progress.busy, progress.work) == (1.0, True, "2 requests running, 1 waiting")


@pytest.mark.parametrize("counters", [replace(IDLE, running=1), replace(IDLE, waiting=1)])
def test_a_request_is_work_whether_it_runs_or_waits(counters):
    progress = EngineProgress(0.0)
    progress.feed(1.0, counters)
    progress.feed(60.0, counters)
    assert (progress.at, progress.busy) == (1.0, True)
    assert progress.work == f"{counters.running} requests running, {counters.waiting} waiting"


@pytest.mark.parametrize(
    "moved",
    [
        {"steps": 8},
        {"generated": 10},
        {"kv_usage": 0.2},
        {"kv_usage": 0.05},
        {"running": 1},
        {"waiting": 2},
        {"accepted": 1},
    ],
)
def test_each_counter_that_moves_is(moved):
    progress = EngineProgress(0.0)
    progress.feed(1.0, RUNNING)
    progress.feed(60.0, replace(RUNNING, **moved))
    assert progress.at == 60.0


def test_counters_that_start_again_are():
    progress = EngineProgress(0.0)
    progress.feed(1.0, RUNNING)
    progress.feed(2.0, Counters(running=1))
    assert progress.at == 2.0


def test_polls_without_an_answer_are_no_progress_and_the_wait_begins_with_the_first():
    progress = EngineProgress(0.0)
    progress.feed(1.0, IDLE)
    progress.lost(12.0)
    progress.lost(24.0)
    assert (progress.at, progress.busy, progress.work) == (12.0, True, "the API server does not answer")
    progress.feed(25.0, IDLE)
    assert (progress.at, progress.busy) == (25.0, False)


def test_polls_without_an_answer_while_requests_run_change_nothing():
    progress = EngineProgress(0.0)
    progress.feed(1.0, RUNNING)
    progress.lost(12.0)
    assert progress.at == 1.0


def test_a_canary_that_does_not_come_back_is_work():
    progress = EngineProgress(0.0)
    progress.feed(1.0, IDLE)
    progress.canary_out = True
    progress.feed(60.0, IDLE)
    assert (progress.at, progress.busy, progress.work) == (1.0, True, "a canary outstanding")


POLLS = st.lists(
    st.tuples(st.floats(0, 100), st.none() | st.builds(Counters, steps=st.integers(0, 2), running=st.integers(0, 1)))
)


@given(POLLS)
def test_the_sign_is_never_in_the_future_and_never_goes_back(polls):
    progress, now, at = EngineProgress(0.0), 0.0, 0.0
    for pause, counters in polls:
        now += pause
        progress.lost(now) if counters is None else progress.feed(now, counters)
        assert at <= progress.at <= now
        assert progress.busy or progress.at == now
        at = progress.at


@pytest.mark.slow
def test_an_engine_that_is_stopped_makes_none_until_it_goes_on(broken: ServeProcess):
    core = engine_core(broken)

    async def scenario(engine: VllmClient) -> None:
        progress = EngineProgress(0.0)
        long = asyncio.create_task(engine.complete(LONG, 1, salt="0"))
        while not (counters := await stopped(core, engine)).running:
            core.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.02)
            if long.done():  # it went by between two looks, on a busy machine
                long = asyncio.create_task(engine.complete(LONG, 1, salt=str(time.monotonic())))
        for now in range(1, 6):
            progress.feed(float(now), counters)
            counters = await engine.counters()
        assert (progress.at, progress.busy) == (1.0, True)
        core.send_signal(signal.SIGCONT)
        await long
        progress.feed(6.0, await engine.settled_counters())
        assert (progress.at, progress.busy) == (6.0, False)

    watched(broken, core, scenario)


def watched(
    server: ServeProcess, core: psutil.Process, scenario: Callable[[VllmClient], Coroutine[Any, Any, None]]
) -> None:
    async def watch() -> None:
        engine = VllmClient(server.endpoint.url)
        try:
            await scenario(engine)
        finally:
            core.send_signal(signal.SIGCONT)
            await engine.close()

    asyncio.run(watch())


async def stopped(core: psutil.Process, engine: VllmClient) -> Counters:
    """Stop the engine and return its counters when all that was on its way to the API server has arrived."""
    core.send_signal(signal.SIGSTOP)
    last = await engine.counters()
    while True:
        await asyncio.sleep(0.1)
        if (now := await engine.counters()) == last:
            return now
        last = now


def engine_core(server: ServeProcess) -> psutil.Process:
    (core,) = [process for process in descendants(server.process.pid) if "EngineCore" in " ".join(argv_of(process))]
    return core
