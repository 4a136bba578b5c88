"""The watch over a ready replica, poll by poll, with a clock and an engine that the test moves."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from dsv4_serve.entrypoint.client.counters import Counters
from dsv4_serve.entrypoint.client.errors import OutOfFiles, Unreachable
from dsv4_serve.entrypoint.draft_floors import Floors
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervision_settings import Supervision
from dsv4_serve.entrypoint.supervisor import monitor
from dsv4_serve.entrypoint.supervisor.context import VllmSession
from dsv4_serve.entrypoint.supervisor.kernel_cache import KernelCache
from dsv4_serve.entrypoint.vllm_log import exit_cause
from dsv4_serve.entrypoint.vllm_log.exit_cause import ExitReason
from dsv4_serve.healthcheck import canary, checks
from dsv4_serve.healthcheck.state import Health

IDLE = Counters(steps=1, generated=1, speculates=True)
BUSY = replace(IDLE, running=2)
SETTINGS = Supervision()
GARBLED = ExitReason(exit_cause.CORRUPTED, "garbled")


class Engine:
    """Counters, or the error that asking for them gives; one-token canaries are answered."""

    counters_now: Counters | Exception = IDLE
    asked = 0

    async def counters(self) -> Counters:
        if isinstance(self.counters_now, Exception):
            raise self.counters_now
        return self.counters_now

    async def complete(self, *_: object, **__: object) -> None:
        self.asked += 1
        await self.counters()


class Watch:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.engine, self.health = Engine(), Health(floors=Floors(0.25, (0.4, 0.1)))
        self.canaries: list[bool] = []
        self.answers: list[ExitReason | None] = []
        monkeypatch.setattr(monitor.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(monitor, "corruption", self.corruption)
        plan = Plan({}, {"speculative-config.num_speculative_tokens": Setting(3, "test")}, {})
        cache = KernelCache.__new__(KernelCache)
        client: Any = self.engine
        self.monitor = monitor._Monitor(VllmSession(plan, SETTINGS, self.health, client, cache, 0.0))

    async def corruption(self, _session: object, *, during_traffic: bool) -> ExitReason | None:
        self.canaries.append(during_traffic)
        return self.answers.pop(0) if self.answers else None

    async def poll(self, counters: Counters | Exception, seconds: float = 2.0) -> ExitReason | None:
        self.now += seconds
        self.engine.counters_now = counters
        reason = await self.monitor.poll()
        for _ in range(5):
            await asyncio.sleep(0)
        return reason


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def traffic(watch: Watch, hours: float, per_second: int, start: int = 1000) -> None:
    async def whole() -> None:
        for second in range(0, int(hours * 3600), 10):
            counters = replace(BUSY, steps=second, generated=start + second * per_second)
            assert await watch.poll(counters, 10.0) is None

    asyncio.run(whole())


@pytest.mark.parametrize(("per_second", "hours", "canaries"), [(1000, 4, 8), (100, 4, 5), (10, 4, 0), (20, 8, 2)])
def test_under_steady_traffic_canaries_run_slowly_and_take_a_two_hundredth_of_the_tokens(
    watch: Watch, per_second: int, hours: float, canaries: int
) -> None:
    traffic(watch, hours, per_second)
    assert watch.canaries == [True] * canaries
    cost = canaries * canary.cost(1, SETTINGS.gate.tokens)
    assert cost <= 0.005 * hours * 3600 * per_second
    assert watch.engine.asked == 0


def test_a_garbled_canary_beside_traffic_ends_only_when_it_fails_twice(watch: Watch) -> None:
    watch.answers = [GARBLED, None]
    traffic(watch, 0.52, 1000)
    assert watch.canaries == [True, True]
    watch.answers = [GARBLED, GARBLED]

    async def until_end() -> ExitReason | None:
        for second in range(0, 4000, 10):
            if reason := await watch.poll(replace(BUSY, steps=second, generated=10**7 + second * 1000), 10.0):
                return reason
        return None

    assert asyncio.run(until_end()) is GARBLED


def test_an_idle_replica_is_asked_for_one_token_and_at_times_for_all(watch: Watch) -> None:
    async def whole() -> None:
        for _ in range(1000):
            assert await watch.poll(IDLE) is None

    asyncio.run(whole())
    assert watch.canaries == [False]
    assert 100 < watch.engine.asked < 200


def test_300_draft_tokens_without_an_accepted_one_are_called_at_once(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def whole() -> list[bool]:
        low = []
        for second in range(600):  # at 45 %, as a sound draft head; then not one
            accepted = 45 * min(second, 300)
            await watch.poll(replace(BUSY, steps=second, drafted=100 * second, accepted=accepted), 1.0)
            low.append(watch.health.below_floor)
        return low

    low = asyncio.run(whole())
    assert low == [second >= 303 for second in range(600)]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "none of the last 300 draft tokens was accepted: the drafter only costs time."
    warning = checks.draft_gate(watch.health, 0.0).warning
    assert warning == "live traffic: 0 of 29900 draft tokens accepted (0%, floor 25%)"


def test_polls_that_this_process_cannot_make_are_no_hang_and_are_said_once(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    async def polls(error: Exception) -> ExitReason | None:
        await watch.poll(BUSY)
        for _ in range(100):
            if reason := await watch.poll(error):
                return reason
        return None

    assert asyncio.run(polls(OutOfFiles("no file descriptor left"))) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert asyncio.run(polls(Unreachable("gone"))).cause is exit_cause.HUNG  # type: ignore[union-attr]


def test_a_collapse_in_live_traffic_is_told_once_with_its_positions(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def whole() -> None:
        for second in range(400):  # two tokens in each draft: the first is right, the second never
            at = (100 * second, 0)
            counts = {"drafts": 100 * second, "drafted": 200 * second, "accepted": 100 * second, "accepted_at": at}
            await watch.poll(replace(BUSY, steps=second, **counts), 1.0)

    asyncio.run(whole())
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("live traffic, by position 100%, 0% of ")
    assert "it collapses after position 0" in said
    assert watch.health.collapsed
    assert watch.health.below_floor
    assert "it collapses after position 0" in checks.draft_gate(watch.health, 0.0).warning


def polled(watch: Watch, *polls: tuple[Counters | Exception, float]) -> list[ExitReason | None]:
    """What each poll finds; a poll is what vLLM answers, and the seconds since the last one."""

    async def whole() -> list[ExitReason | None]:
        return [await watch.poll(counters, seconds) for counters, seconds in polls]

    return asyncio.run(whole())


def test_it_is_hung_when_more_than_the_grace_has_passed_and_says_with_which_work(watch: Watch) -> None:
    grace = SETTINGS.supervise.live_grace
    work = replace(BUSY, waiting=1)
    *alive, hung = polled(watch, (work, 1.0), (work, grace), (work, 1.0))
    assert alive == [None, None]
    assert watch.health.requests == 3
    assert hung is not None
    assert hung.cause is exit_cause.HUNG
    assert hung.sentence.startswith("no progress for 121 s while there was work (2 requests running, 1 waiting); the")
    assert hung.sentence.endswith("the limit is 120 s (supervise.live-grace).")


def test_watching_goes_on_until_there_is_a_reason(watch: Watch) -> None:
    class Passing(Engine):
        async def counters(self) -> Counters:
            watch.now += 10.0
            return BUSY

    supervise = SETTINGS.supervise.model_copy(update={"poll": 0.0})
    settings = SETTINGS.model_copy(update={"supervise": supervise})
    session = replace(watch.monitor.session, client=Passing(), settings=settings)  # type: ignore[arg-type]
    assert asyncio.run(monitor.watch(session)).cause is exit_cause.HUNG


def test_tokens_from_before_the_watch_pay_for_no_canary(watch: Watch) -> None:
    traffic(watch, 0.6, 10, start=10**8)
    assert watch.canaries == []


def test_a_canary_beside_traffic_may_cost_a_two_hundredth_of_the_tokens_and_no_more(watch: Watch) -> None:
    cost = canary.cost(1, SETTINGS.gate.tokens)
    polled(watch, (BUSY, 1.0), (replace(BUSY, generated=BUSY.generated + 200 * cost), 1.0))
    assert watch.monitor._affordable()
    polled(watch, (replace(BUSY, generated=200 * cost), 1.0))
    assert not watch.monitor._affordable()


def test_a_canary_that_had_to_run_again_is_paid_for_twice(watch: Watch) -> None:
    watch.answers = [GARBLED, None]
    cost = canary.cost(1, SETTINGS.gate.tokens)
    assert asyncio.run(watch.monitor._corruption(True)) is None
    polled(watch, (replace(BUSY, generated=10), 1.0), (replace(BUSY, generated=10 + 399 * cost), 1.0))
    assert not watch.monitor._affordable()
    polled(watch, (replace(BUSY, generated=10 + 400 * cost), 1.0))
    assert watch.monitor._affordable()
    assert asyncio.run(watch.monitor._corruption(True)) is None
    assert watch.monitor.owed == 1


def test_the_tokens_of_a_restarted_server_are_counted_from_its_start(watch: Watch) -> None:
    cost = canary.cost(1, SETTINGS.gate.tokens)
    polled(watch, (replace(BUSY, generated=10**9), 1.0), (replace(BUSY, generated=5), 1.0))
    assert not watch.monitor._affordable()
    polled(watch, (replace(BUSY, generated=5 + 200 * cost), 1.0))
    assert watch.monitor._affordable()


def test_the_first_poll_that_cannot_be_made_is_said(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    polled(watch, (OutOfFiles("no file descriptor left"), 1.0))
    assert caplog.messages == ["vLLM cannot be watched: no file descriptor left. Raise the limit of open files."]


def test_an_idle_replica_is_asked_when_its_time_has_come(watch: Watch) -> None:
    every = SETTINGS.supervise.idle_canary_every
    polled(watch, (IDLE, every - 1), (IDLE, 0.5))
    assert watch.engine.asked == 0
    polled(watch, (IDLE, 0.5))
    assert watch.engine.asked == 1


class Silent(Engine):
    """Its canaries are never answered."""

    async def complete(self, *_: object, **__: object) -> None:
        await asyncio.Event().wait()


def test_a_canary_without_an_answer_is_work_and_ends_with_the_watch(watch: Watch) -> None:
    watch.engine = Silent()
    watch.monitor.session = replace(watch.monitor.session, client=watch.engine)  # type: ignore[arg-type]

    async def whole() -> ExitReason | None:
        watch.monitor.close()  # none runs yet
        await watch.poll(IDLE, 10.0)
        assert await watch.poll(IDLE, 10.0) is None
        assert watch.health.busy
        reason = await watch.poll(IDLE, SETTINGS.supervise.live_grace)
        sent = watch.monitor.canary
        assert sent
        watch.monitor.close()
        await asyncio.wait([sent])
        assert sent.cancelled()
        return reason

    reason = asyncio.run(whole())
    assert reason is not None
    assert "a canary outstanding" in reason.sentence


@pytest.mark.parametrize(
    ("error", "outstanding"), [(None, False), (Unreachable("gone"), True), (OutOfFiles("none left"), False)]
)
def test_only_a_canary_that_vllm_did_not_answer_stays_work(
    watch: Watch, error: Exception | None, outstanding: bool
) -> None:
    class Answering(Engine):
        async def complete(self, *_: object, **__: object) -> None:
            if error:
                raise error

    watch.engine = Answering()
    watch.monitor.session = replace(watch.monitor.session, client=watch.engine)  # type: ignore[arg-type]
    polled(watch, (IDLE, 10.0), (IDLE, 1.0))
    assert watch.health.busy is outstanding


@pytest.mark.parametrize(("fruitless", "called"), [(299, False), (300, True), (301, True)])
def test_the_call_comes_with_the_300th_draft_token(watch: Watch, fruitless: int, called: bool) -> None:
    polled(watch, (BUSY, 1.0), (replace(BUSY, drafted=100, accepted=50), 1.0))
    polled(watch, (replace(BUSY, drafted=100 + fruitless, accepted=50), 1.0))
    assert watch.health.below_floor is called
    live = watch.health.live_acceptance
    assert live is not None
    assert (live.drafted, live.accepted) == ((fruitless, 0) if called else (100 + fruitless, 50))


def test_acceptance_below_its_floor_is_told_once_with_its_figures(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    low = [(replace(BUSY, steps=n, drafted=100 * n, accepted=10 * n), 1.0) for n in range(10)]
    polled(watch, *low)
    assert watch.health.below_floor
    assert caplog.messages == [
        "50 of 500 draft tokens of the last 300 s were accepted (10%); the floor is 25% (gate.acceptance-floor)."
    ]


def test_without_a_floor_no_acceptance_is_below_it(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    watch.health.floors = None
    polled(watch, *[(replace(BUSY, steps=n, drafted=100 * n, accepted=10 * n), 1.0) for n in range(10)])
    assert not watch.health.below_floor
    assert caplog.messages == []


def test_a_window_without_an_accepted_token_says_0_percent(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    watch.monitor.supervise = SETTINGS.supervise.model_copy(update={"window_drafts": 100})
    polled(watch, (BUSY, 1.0), (replace(BUSY, drafted=150), 1.0))
    assert caplog.messages == [
        "0 of 150 draft tokens of the last 300 s were accepted (0%); the floor is 25% (gate.acceptance-floor)."
    ]
