"""The loop of a drain, over a vLLM whose counters, log and end the test makes, and a clock that each reading moves."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dsv4_serve.entrypoint.client.counters import Counters
from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervision_settings import Supervision
from dsv4_serve.entrypoint.supervisor import drain
from dsv4_serve.entrypoint.supervisor.context import VllmSession
from dsv4_serve.entrypoint.supervisor.kernel_cache import KernelCache
from dsv4_serve.entrypoint.supervisor.request_count import ShutdownLog
from dsv4_serve.entrypoint.supervisor.stop_signals import StopSignals
from dsv4_serve.entrypoint.vllm_log.parser import LogLine
from dsv4_serve.healthcheck.state import Health

ALLOWED, GRACE, STOP = 120.0, 60.0, 20.0
BEGUN = "[shutdown] EngineCore: start mode=drain timeout=120s"
DONE = "[shutdown] EngineCore: request processing complete; starting resource teardown"
UNCOUNTED = (
    "whether 5 requests were cut is unknown: vLLM ended with status 0, but closed its port before, and logged no count."
)
STOPPED = "[shutdown] API server: engine client stopped"


@dataclass
class Engine:
    """vLLM: `readings` are its counters, the last one for ever, or None where it does not answer."""

    readings: Iterator[Counters | None]
    at_sigterm: Callable[[Engine], None] = lambda _: None
    now: float = 1000.0
    signals: list[int] = field(default_factory=list)
    log: ShutdownLog = field(default_factory=ShutdownLog)
    log_finished: bool = False
    exited: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    stop: StopSignals = field(default_factory=StopSignals)

    async def counters(self) -> Counters:
        self.now += 1.0
        counters = next(self.readings)
        if counters is None:
            raise Unreachable("closed")
        return counters

    def signal(self, number: int) -> None:
        self.signals.append(number)
        self.at_sigterm(self)

    async def finish_log(self) -> None:
        self.log_finished = True

    def says(self, *lines: str) -> None:
        for line in lines:
            self.log.feed(LogLine(line, "EngineCore", "INFO", "core.py:1"))


def always(counters: Counters | None) -> Iterator[Counters | None]:
    return itertools.repeat(counters)


def generating(running: int) -> Iterator[Counters | None]:
    """Requests that go on and never end."""
    return (Counters(running=running, generated=number) for number in itertools.count())


def stopped(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], Engine],
    *,
    signals: tuple[int, ...] = (signal.SIGTERM,),
    wait: float = 0.0,
    **health: Any,
) -> tuple[tuple[int, str], Engine, Health]:
    """Status and sentence of a drain, and what it left."""

    async def whole() -> tuple[tuple[int, str], Engine, Health]:
        engine = make()
        monkeypatch.setattr(drain, "time", SimpleNamespace(monotonic=lambda: engine.now))
        monkeypatch.setattr(drain, "PAUSE", 0.0)
        for number in signals:
            engine.stop.received(number)
        supervise = {"drain-wait": wait, "live-grace": GRACE, "stop-grace": STOP}
        settings = Supervision.model_validate({"supervise": supervise})
        state = Health(**{"ready_after": 60.0, "requests": 5, "progressed": 1000.0, **health})
        plan = Plan({}, {"shutdown-timeout": Setting(ALLOWED, "test")}, {})
        vllm: Any = engine
        session = VllmSession(plan, settings, state, vllm, KernelCache.__new__(KernelCache), 0.0)
        reason = await asyncio.wait_for(drain.drain(session, vllm, engine.stop, vllm.exited, engine.log), 60)
        return (reason.cause.exit_status, reason.sentence), engine, state

    return asyncio.run(whole())


def answers_all(engine: Engine) -> None:
    engine.says(BEGUN, DONE, STOPPED)
    engine.exited.set_result(0)


def test_a_replica_that_was_never_ready_has_nothing_to_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    found, engine, health = stopped(monkeypatch, lambda: Engine(always(None)), ready_after=None)
    assert found == (0, "stopped during the start.")
    assert engine.signals == []
    assert (health.draining, health.phase) == (True, "draining")


def test_vllm_gets_one_sigterm_answers_what_runs_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    found, engine, health = stopped(monkeypatch, lambda: Engine(generating(5), answers_all))
    assert found == (0, "stopped after every running request had finished.")
    assert engine.signals == [signal.SIGTERM]
    assert engine.log_finished  # its last lines count
    assert engine.now - 1000.0 < 10
    assert health.draining


def test_the_balancer_is_waited_for_and_not_when_a_person_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float, sleeps: Callable[[float], Any] = asyncio.sleep) -> None:
        waited.append(seconds)
        await sleeps(0)

    monkeypatch.setattr(drain, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    for number, longest in ((signal.SIGTERM, 3600.0), (signal.SIGINT, 0.0)):
        waited.clear()
        found, _, _ = stopped(monkeypatch, lambda: Engine(generating(5), answers_all), signals=(number,), wait=3600.0)
        assert (found[0], max(waited, default=0.0)) == (0, longest)


def test_a_second_signal_ends_the_wait_and_no_sigterm_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    found, engine, _ = stopped(
        monkeypatch, lambda: Engine(generating(5)), signals=(signal.SIGTERM, signal.SIGTERM), wait=3600.0
    )
    assert found == (143, "5 requests were cut: a second signal came before they were answered.")
    assert engine.signals == []


def test_a_second_signal_ends_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    found, engine, _ = stopped(
        monkeypatch, lambda: Engine(generating(4), lambda engine: engine.stop.received(signal.SIGTERM))
    )
    assert found == (143, "4 requests were cut: a second signal came before they were answered.")
    assert engine.now - 1000.0 < 10
    assert engine.signals == [signal.SIGTERM]


def test_vllm_that_ended_before_its_sigterm_died(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Engine:
        engine = Engine(always(None))
        engine.exited.set_result(1)
        return engine

    found, engine, _ = stopped(monkeypatch, gone, wait=3600.0)
    assert found == (82, "5 requests were cut: vLLM's engine died while it was stopped (exit status 1).")
    assert engine.signals == []


def test_requests_that_go_on_have_the_shutdown_timeout_and_the_time_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    found, engine, health = stopped(monkeypatch, lambda: Engine(generating(3)))
    assert found == (143, "3 requests were cut: shutdown-timeout (120 s) expired.")
    assert ALLOWED + STOP <= engine.now - 1000.0 <= ALLOWED + STOP + 10
    assert health.detail == "3 requests running"


def test_requests_that_stand_still_are_hung_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    found, engine, _ = stopped(monkeypatch, lambda: Engine(always(Counters(running=2))))
    assert found[0] == 83
    assert GRACE < engine.now - 1000.0 <= GRACE + 10
    assert "2 requests were cut: vLLM made no progress for 6" in found[1]


def test_a_hang_from_before_the_stop_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found, engine, _ = stopped(monkeypatch, lambda: Engine(always(None)), busy=True, progressed=1000.0 - GRACE + 5)
    assert found[0] == 83
    assert 5 < engine.now - 1000.0 < 15
    assert "5 requests were cut: vLLM made no progress for 6" in found[1]


def test_an_engine_that_its_server_lost_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found, engine, _ = stopped(monkeypatch, lambda: Engine(generating(5), lambda engine: engine.says(BEGUN, STOPPED)))
    assert found == (82, "5 requests were cut: vLLM's engine died while it was stopped.")
    assert engine.now - 1000.0 < 10


def test_a_server_that_lost_an_idle_engine_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(engine: Engine) -> None:
        engine.says(BEGUN, STOPPED)

    found, engine, _ = stopped(monkeypatch, lambda: Engine(always(Counters()), lost))
    assert found == (0, "stopped after every running request had finished.")
    assert engine.now - 1000.0 >= ALLOWED + STOP


def test_a_server_that_closes_its_port_and_says_nothing_may_have_cut_what_ran(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def closing() -> Engine:
        def readings() -> Iterator[Counters | None]:
            yield Counters(running=5)
            yield from itertools.repeat(None, 10)
            engine.exited.set_result(0)
            yield from itertools.repeat(None)

        engine = Engine(readings())
        return engine

    assert stopped(monkeypatch, closing)[0] == (143, UNCOUNTED)


def test_a_server_that_ends_with_streams_and_no_word_while_its_port_is_open_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, _, _ = stopped(monkeypatch, lambda: Engine(generating(5), lambda engine: engine.exited.set_result(0)))
    assert found == (82, "5 requests were cut: vLLM's engine died while it was stopped (exit status 0).")


def test_a_server_that_was_never_read_and_says_nothing_may_have_cut_what_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _, _ = stopped(monkeypatch, lambda: Engine(always(None), lambda engine: engine.exited.set_result(0)))
    assert found == (143, UNCOUNTED)
