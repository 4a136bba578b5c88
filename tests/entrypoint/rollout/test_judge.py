"""What is promoted, what is rolled back, and what is not enough to tell."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dsv4_serve.entrypoint.client.counters import Counters
from dsv4_serve.entrypoint.rollout.judge import CanaryFinding, CanaryLimits, WatchedCandidate, judge
from dsv4_serve.entrypoint.rollout.reading import ReplicaReading, Tally, quantile

LIMITS = CanaryLimits()
READING = ReplicaReading(Counters(generated=9, speculates=True), {}, 1, True, True, floors=(0.6, 0.3))
TTFT = {0.1: 80, 0.5: 100, math.inf: 100}
SIDE = Tally(1, 100, 0, 2000, (1600, 1000), True, TTFT)


def findings(
    new: Tally = SIDE, stable: Tally = SIDE, last: ReplicaReading = READING, **watched: int
) -> dict[str, CanaryFinding]:
    one = WatchedCandidate("http://c", READING, last, **watched)  # pyright: ignore[reportArgumentType]
    return {found.rule: found for found in judge({"http://c": one}, new, stable, LIMITS)}


def test_an_equal_candidate_is_good_by_every_rule() -> None:
    found = findings()
    assert {one.state for one in found.values()} == {"good"}
    assert found["acceptance"].text == "candidates accept 80% 50% by position, stable replicas 80% 50%"


@pytest.mark.parametrize(
    ("accepted", "state", "certain"),
    [
        ((0, 0), "bad", True),  # noise
        ((1180, 1000), "bad", False),  # 59 %, floor 60 %: it may be chance
        ((1600, 400), "bad", True),  # 20 % at the second position, floor 30 %
        ((1480, 1000), "bad", False),  # 74 %, above the floor, 6 points below the stable replicas
        ((1520, 1000), "good", False),  # 76 %
    ],
)
def test_acceptance_is_held_to_its_floor_and_to_the_stable_replicas_at_each_position(
    accepted: tuple[int, ...], state: str, certain: bool
) -> None:
    found = findings(replace(SIDE, accepted_at=accepted))["acceptance"]
    assert (found.state, found.certain) == (state, certain)


def test_positions_are_counted_from_0_as_in_the_metrics_and_the_gate() -> None:
    assert "drafts at position 0, the floor is 60%" in findings(replace(SIDE, accepted_at=(0, 0)))["acceptance"].text
    later = findings(replace(SIDE, accepted_at=(1600, 400)))["acceptance"].text
    assert later == "candidates accept 20% of 2,000 drafts at position 1, the floor is 30%, stable replicas accept 50%"


def test_few_drafts_prove_nothing() -> None:
    few = replace(SIDE, drafts=100, accepted_at=(0, 0))
    assert findings(few)["acceptance"].state == "missing"
    assert not findings(few)["acceptance"].certain
    assert findings(stable=few)["acceptance"].state == "missing"


def test_a_candidate_that_lost_its_draft_head_is_bad_at_once() -> None:
    for sign in ("degraded", "collapsed"):
        found = findings(last=replace(READING, **{sign: True}))["acceptance"]
        assert (found.state, found.certain) == ("bad", True)
    without = replace(SIDE, speculates=False, drafts=0, accepted_at=())
    assert findings(without)["acceptance"].text == "candidates do not draft, stable replicas do"
    assert findings(without, without)["acceptance"].state == "good"


def test_more_positions_than_the_stable_replicas_have_are_held_to_their_floors_alone() -> None:
    longer = replace(SIDE, accepted_at=(1600, 1000, 10))
    assert findings(longer)["acceptance"].state == "good"
    assert findings(longer, last=replace(READING, floors=(0.6, 0.3, 0.2)))["acceptance"].state == "bad"


@pytest.mark.parametrize(("sound", "state"), [(True, "good"), (False, "bad"), (None, "missing")])
def test_the_corruption_canary_has_to_pass(sound: bool | None, state: str) -> None:
    assert findings(last=replace(READING, answers_sound=sound))["answers"].state == state


def test_a_restart_is_bad_at_once() -> None:
    for later in (replace(READING, starts=2), replace(READING, counters=Counters(generated=1))):
        found = findings(last=later)["replicas"]
        assert (found.state, found.certain) == ("bad", True)


@pytest.mark.parametrize(("polls", "certain"), [(1, False), (2, False), (3, True)])
def test_a_silent_or_unready_candidate_gets_three_polls(polls: int, certain: bool) -> None:
    assert findings(silent=polls)["replicas"].certain is certain
    assert findings(silent=polls)["replicas"].state == "missing"
    assert findings(unready=polls)["replicas"] == CanaryFinding("replicas", "bad", "http://c is not ready", certain)


def test_no_candidate_is_not_a_good_one() -> None:
    found = judge({}, Tally(), SIDE, LIMITS)
    assert {one.rule for one in found if one.state != "missing"} == set()


@pytest.mark.parametrize(
    ("failed", "state", "certain"),
    [(0, "good", False), (1, "good", False), (2, "bad", False), (3, "bad", False), (4, "bad", True)],
)
def test_failed_requests_are_compared(failed: int, state: str, certain: bool) -> None:
    found = findings(replace(SIDE, failed=failed))["errors"]
    assert (found.state, found.certain) == (state, certain)


def test_failures_that_stable_replicas_have_too_are_no_reason() -> None:
    assert findings(replace(SIDE, failed=6), replace(SIDE, failed=6))["errors"].state == "good"


def test_requests_are_required_on_both_sides() -> None:
    few = replace(SIDE, requests=19)
    assert findings(few)["traffic"].state == findings(stable=few)["traffic"].state == "missing"
    assert findings(replace(few, requests=0))["errors"].state == "missing"


@pytest.mark.parametrize(
    ("ttft", "state"),
    [({0.1: 10, 0.5: 20, 1.0: 100, math.inf: 100}, "bad"), ({0.5: 100, math.inf: 100}, "good"), ({}, "missing")],
)
def test_the_time_to_first_token_is_compared(ttft: dict[float, int], state: str) -> None:
    assert findings(replace(SIDE, ttft=ttft))["first token"].state == state


def test_a_quantile_is_interpolated_in_its_bucket() -> None:
    assert quantile(TTFT, 0.9) == pytest.approx(0.3)
    assert quantile(TTFT, 0.4) == pytest.approx(0.05)
    assert quantile({0.1: 1, math.inf: 10}, 0.9) == 0.1
    assert quantile({0.1: 0, math.inf: 0}, 0.9) is None
