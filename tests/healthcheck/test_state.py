"""The arithmetic of a replica's state: draft tokens, phases, idle time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.healthcheck.state import Acceptance, Health

COUNTS = st.integers(0, 1000)
ACCEPTANCES = st.builds(Acceptance, COUNTS, COUNTS, COUNTS, st.lists(COUNTS, max_size=4).map(tuple))


def test_the_ratio_is_accepted_by_drafted_and_none_of_nothing() -> None:
    assert Acceptance(4, 1).ratio == 0.25
    assert Acceptance(1, 0).ratio == 0.0
    assert Acceptance(0, 0).ratio is None


def test_positions_are_shares_of_the_drafts() -> None:
    assert Acceptance(8, 5, 4, (4, 1)).positions == (1.0, 0.25)
    assert Acceptance(0, 0, 0, (0, 0)).positions == ()
    assert Acceptance(1, 1, 1, (1,)).positions == (1.0,)


@given(ACCEPTANCES, ACCEPTANCES)
def test_what_is_counted_since_a_reading_is_what_was_added_to_it(before: Acceptance, more: Acceptance) -> None:
    later = (before + more).since(before)
    assert (later.drafted, later.accepted, later.drafts) == (more.drafted, more.accepted, more.drafts)
    assert later.at[: len(more.at)] == more.at
    assert set(later.at[len(more.at) :]) <= {0}


def test_a_sum_of_readings_with_more_positions_has_them_all() -> None:
    assert Acceptance(3, 2, 1, (1, 1)) + Acceptance(4, 1, 2, (1,)) == Acceptance(7, 3, 3, (2, 1))
    assert Acceptance(3, 2, 1, (2, 1, 1)).since(Acceptance(1, 1, 1, (1,))) == Acceptance(2, 1, 0, (1, 1, 1))


def test_the_later_draft_tokens_are_those_after_the_first_of_each_draft() -> None:
    assert Acceptance(12, 7, 4, (4, 2, 1)).later == Acceptance(8, 3)
    assert Acceptance(4, 3, 4).later == Acceptance(0, 0)  # vLLM gives no positions: all may be first ones
    assert Acceptance(9, 3, 0, (3,)).later == Acceptance(0, 0)  # drafts are not counted
    assert Acceptance(3, 3, 4, (3,)).later == Acceptance(0, 0)
    assert Acceptance(2, 2, 1, (1, 1)).later == Acceptance(1, 1)
    assert Acceptance(5, 1).later == Acceptance(0, 0)


def test_a_phase_keeps_its_seconds_and_loses_its_progress() -> None:
    health = Health(started=0.0, phase="loading weights", phase_began=10.0)
    health.percent, health.rate, health.detail, health.stall_limit = 50.0, 1e9, "shard 3 of 35", 600.0
    assert health.seconds(12.0) == {"loading weights": 2.0}
    health.enter("loading weights", 15.0)  # no change
    assert (health.phase_began, health.percent) == (10.0, 50.0)
    health.enter("proving", 30.0)
    assert (health.percent, health.rate, health.detail, health.stall_limit) == (None, None, "", None)
    health.enter("loading weights", 33.0)
    assert health.seconds(40.0) == {"loading weights": 27.0, "proving": 3.0}
    assert health.phase_seconds == {"loading weights": 20.0, "proving": 3.0}


def test_a_phase_begins_now_where_no_time_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health(started=0.0, phase="resolving", phase_began=10.0)
    monkeypatch.setattr("dsv4_serve.healthcheck.state.time.monotonic", lambda: 12.0)
    health.enter("checking")
    assert (health.phase_began, health.phase_seconds) == (12.0, {"resolving": 2.0})


@pytest.mark.parametrize(("busy", "now", "idle"), [(True, 107.0, 7.0), (True, 99.0, 0.0), (False, 107.0, 0.0)])
def test_it_is_idle_for_the_seconds_without_progress_while_there_is_work(busy: bool, now: float, idle: float) -> None:
    assert Health(progressed=100.0, busy=busy).idle_for(now) == idle


def test_a_new_replica_is_ready_for_nothing_and_has_started_once() -> None:
    health = Health()
    assert (health.starts, health.requests, health.busy, health.draining) == (1, 0, False, False)
    assert (health.degraded, health.below_floor, health.collapsed) == (False, False, False)
