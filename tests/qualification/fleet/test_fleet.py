"""Four simulated replicas behind the HAProxy that is shipped: one is drained, one hangs, one is killed, all at once."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from qualification.fleet import figures, scenario
from qualification.fleet.replicas import Fleet
from qualification.fleet.routers import router_program
from qualification.fleet.scenario import Fault, Seen
from qualification.fleet.standing import Front
from qualification.fleet.timings import MEAN_TOKENS, RTX_PRO_6000_TP2
from tests.support.patience import slowness
from tests.support.program import need

pytestmark = [pytest.mark.process, pytest.mark.slow]  # clocks of a fleet want no more tests than cores beside them

DRAINED, HUNG, KILLED = 0, 1, 2
GRACE, OUT = 10.0, 30.0  # seconds: the replica notices after its grace, then HAProxy does; 35 is shipped
SHARE = 0.15  # of what four can bear: 60 % of what one can


def until_all_have_work(made: Fleet, *replicas: int) -> None:
    ends = time.monotonic() + 30 * slowness()
    while not all(made.ask("look")["loads"][number] for number in replicas):
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    need("haproxy", "HAPROXY")

    def hurt(made: Fleet, running: Front, seen: Seen) -> None:
        until_all_have_work(made, DRAINED, HUNG, KILLED)
        seen.faults = [Fault(kind, n, made.tell(kind, n)) for n, kind in enumerate(("drain", "hang", "kill"))]
        time.sleep(OUT)
        made.tell("kill", HUNG)  # as the supervisor does, if later
        for fault in seen.faults:
            fault.ended = fault.settled = time.monotonic()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSV4_SUPERVISE_READY_GRACE", str(GRACE))
        return scenario.observed(4, "haproxy", tmp_path_factory.mktemp("fleet"), hurt, share=SHARE)


def test_a_drain_loses_no_request_and_gets_none_after_2_5_seconds(seen: Seen) -> None:
    drained = figures.fault(seen, seen.faults[DRAINED])
    assert (drained["lost_that_ran_there"], drained["lost_sent_there_later"]) == (0, 0)
    assert drained["last_new_after"] <= 4.0 * slowness(
        2.5
    )  # 2.5 s, on a machine that may be busy; the replica waits 5 s for it


def test_a_kill_loses_what_ran_there_and_nothing_else(seen: Seen) -> None:
    killed = figures.fault(seen, seen.faults[KILLED])
    assert killed["lost_that_ran_there"] <= killed["running_there"] + 2  # what came since the last look
    assert (killed["lost_sent_there_later"], killed["lost_elsewhere"]) == (0, 0)
    assert killed["sent_twice"] == 0
    assert killed["out_after"] <= 10.0 * slowness(2.5)


def test_a_hung_engine_is_out_in_time_and_only_what_it_got_until_then_is_lost(seen: Seen) -> None:
    hung = figures.fault(seen, seen.faults[HUNG])
    assert hung["out_after"] >= GRACE
    assert hung["out_after"] <= OUT
    assert hung["last_new_after"] <= hung["out_after"] + 0.5 * slowness()
    lost = [one for one in seen.requests if one.error]
    assert all(one.sent < seen.faults[HUNG].began + hung["out_after"] + 0.5 * slowness() for one in lost)


def test_each_chunk_of_a_stream_is_passed_on_at_once_and_not_with_the_next(seen: Seen) -> None:
    """A chunk that waits for the next one is always late; a busy machine makes many late, but not all."""
    early = statistics.quantiles((late for one in seen.requests for late in one.late_chunks), n=5)[0]
    assert early <= RTX_PRO_6000_TP2.step(1) / 2


def test_requests_after_all_that_are_whole(seen: Seen) -> None:
    last = [one for one in seen.requests if one.sent > seen.faults[HUNG].began + OUT - 1]
    assert last
    assert [one.error for one in last if one.error] == []


def test_a_router_that_learns_of_a_drain_loses_no_request(tmp_path: Path) -> None:
    if router_program() is None:
        pytest.skip("no vllm-router is installed (VLLM_ROUTER names one)")

    def drain(made: Fleet, running: Front, seen: Seen) -> None:
        until_all_have_work(made, DRAINED)
        began = made.tell("drain", DRAINED)
        running.remove(made.addresses[DRAINED])
        time.sleep(8)
        seen.faults = [Fault("drain", DRAINED, began, time.monotonic(), time.monotonic())]

    seen = scenario.observed(4, "router:policy=power_of_two", tmp_path, drain, share=SHARE)
    drained = figures.fault(seen, seen.faults[0])
    assert [one.error for one in seen.requests if one.error] == []
    assert drained["last_new_after"] <= 1.0 * slowness(5)


def test_a_full_replica_makes_as_many_tokens_a_second_as_the_recording() -> None:
    steps = 1 / RTX_PRO_6000_TP2.step(16)
    assert steps * 16 * (1 + RTX_PRO_6000_TP2.acceptance) == pytest.approx(482.61)
    assert RTX_PRO_6000_TP2.step(40) == RTX_PRO_6000_TP2.step(16)


def test_a_step_takes_longer_the_more_requests_run() -> None:
    steps = [RTX_PRO_6000_TP2.step(running) for running in range(1, 17)]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize(("replicas", "share"), [(2, 0.45), (3, 0.6), (64, 0.6)])
def test_the_load_is_what_the_fleet_can_bear_without_one(replicas: int, share: float) -> None:
    assert scenario.share_of_capacity(replicas) == pytest.approx(share)
    assert scenario.mean_tokens() < MEAN_TOKENS
