"""The steps of a canary, with replicas and a balancer that are made up."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from dsv4_serve.entrypoint.client.counters import Counters
from dsv4_serve.entrypoint.client.errors import Unreachable
from dsv4_serve.entrypoint.errors import UsageError
from dsv4_serve.entrypoint.rollout import report
from dsv4_serve.entrypoint.rollout import run as rollouts
from dsv4_serve.entrypoint.rollout.balancers import FOR_GOOD, BalancerTraffic, CanaryShare
from dsv4_serve.entrypoint.rollout.judge import CanaryLimits
from dsv4_serve.entrypoint.rollout.reading import ReplicaReading
from dsv4_serve.entrypoint.rollout.run import Rollout, RolloutOutcome, RolloutRefused


@dataclass
class World:
    """Each second, every side finishes requests by its share, with 40 drafts each."""

    now: float = 0.0
    set: list[tuple[int, int]] = field(default_factory=list)
    requests: dict[str, float] = field(default_factory=lambda: {"candidate": 0.0, "stable": 0.0})
    rate: float = 10.0
    accepts: float = 0.8
    events: Callable[[World], None] = lambda _world: None
    silent: str = ""
    starts: int = 1
    lost: bool = False

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        share = self.set[-1][0] / 100 if self.set else 0.0
        self.requests["candidate"] += self.rate * share * seconds
        self.requests["stable"] += self.rate * (1 - share) * seconds
        self.events(self)

    def reading(self, side: str, accepts: float) -> ReplicaReading:
        drafts = int(self.requests[side] * 40)
        counters = Counters(drafts=drafts, accepted_at=(int(drafts * accepts),), speculates=True)
        ttft = {0.1: int(self.requests[side]), math.inf: int(self.requests[side])}
        return ReplicaReading(counters, ttft, self.starts, True, True, floors=(0.6,))

    def rollout(self, *steps: int, seconds: float = 60.0) -> Rollout:
        return Rollout(
            cast("Any", Side(self, "stable")),
            cast("Any", Side(self, "candidate")),
            cast("Any", Front(self)),
            steps,
            seconds,
            CanaryLimits(),
            lambda: self.now,
            self.sleep,
        )


@dataclass
class Side:
    """All replicas of one side."""

    world: World
    name: str

    @property
    def urls(self) -> list[str]:
        return [f"http://{self.name}:8000"]

    def read(self) -> dict[str, ReplicaReading | str]:
        if self.name == "candidate" and self.world.silent:
            return {"http://c": self.world.silent}
        return {
            f"http://{self.name[0]}": self.world.reading(self.name, self.world.accepts if self.name[0] == "c" else 0.8)
        }


@dataclass
class Front:
    """The balancer."""

    world: World
    urls: tuple[str, ...] = ("http://b",)

    def set(self, share: int, seconds: int) -> None:
        if self.world.lost:
            raise Unreachable("http://b/canary: no answer.")
        self.world.set.append((share, seconds))

    def shares(self) -> dict[str, CanaryShare]:
        return {"http://b": CanaryShare(share=0, seconds=-9)}

    def traffic(self) -> dict[str, dict[str, BalancerTraffic]]:
        return {"http://b": {side: BalancerTraffic(int(number)) for side, number in self.world.requests.items()}}


def ran(world: World, *steps: int, seconds: float = 60.0) -> RolloutOutcome:
    return rollouts.run(world.rollout(*steps, seconds=seconds), steps)


def test_every_step_is_taken_and_the_last_share_stays() -> None:
    world = World()
    outcome = ran(world, 10, 50, 100)
    assert outcome.promoted
    assert [step.share for step in outcome.steps] == [10, 50, 100]
    assert world.set[-1] == (100, FOR_GOOD)
    assert {seconds for share, seconds in world.set[:-1]} == {rollouts.LEASE}
    assert report.sentence(outcome) == "Promoted: 100 % of requests go to the candidates; every rule held in 3 steps."


def test_a_balancer_that_takes_no_share_ends_the_step_that_it_was_in() -> None:
    outcome = ran(World(lost=True), 5, 100)
    assert report.sentence(outcome).startswith("Rolled back at 5 %: not enough evidence: the balancer does not take")


def test_at_100_percent_it_is_compared_with_the_step_before() -> None:
    outcome = ran(World(), 50, 100)
    assert outcome.steps[1].stable.requests == outcome.steps[0].stable.requests > 0


def test_bad_acceptance_ends_a_step_early_and_rolls_back() -> None:
    world = World(accepts=0.02)
    outcome = ran(world, 10, 100, seconds=600)
    assert not outcome.promoted
    assert outcome.steps[0].seconds < 60
    assert world.set[-1] == (0, 1)
    assert report.sentence(outcome).startswith("Rolled back at 10 %: candidates accept 2% of 1,")
    assert "the floor is 60%, stable replicas accept 80%." in report.sentence(outcome)


def test_missing_evidence_gets_three_times_as_long_and_is_never_promoted() -> None:
    world = World(rate=0.1)
    outcome = ran(world, 5)
    assert outcome.steps[0].seconds == pytest.approx(180)
    assert world.set[-1] == (0, 1)
    assert "not enough evidence: 0 requests to candidates, 17 to stable replicas" in report.sentence(outcome)


def test_evidence_that_comes_late_counts() -> None:
    def busier(world: World) -> None:
        world.rate = 10 if world.now > 90 else 0

    outcome = ran(World(rate=0, events=busier), 50)
    assert outcome.promoted
    assert 90 < outcome.steps[0].seconds < 180


def test_a_silent_candidate_is_given_up_after_three_polls() -> None:
    def silent(world: World) -> None:
        world.silent = "no answer" if world.now > 10 else ""

    outcome = ran(World(events=silent), 50, seconds=600)
    assert outcome.steps[0].seconds == pytest.approx(25)
    assert "the metrics of http://c cannot be read (no answer)" in report.sentence(outcome)


def test_a_restart_rolls_back() -> None:
    def restart(world: World) -> None:
        world.starts = 2 if world.now > 10 else 1

    assert report.sentence(ran(World(events=restart), 50)) == "Rolled back at 50 %: http://c restarted."


def test_a_balancer_that_is_lost_rolls_back_and_says_that_it_was_not_told() -> None:
    def lose(world: World) -> None:
        world.lost = world.now > 10

    outcome = ran(World(events=lose), 50, seconds=600)
    assert outcome.steps[0].seconds == pytest.approx(25)
    assert "A balancer could not be told" in report.sentence(outcome)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_rolls_back_and_the_handlers_are_as_before(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    world = World(events=lambda world: os.kill(os.getpid(), number) if 10 < world.now < 20 else None)
    outcome = ran(world, 50, seconds=600)
    assert outcome.stopped == number
    assert world.set[-1] == (0, 1)
    assert report.sentence(outcome) == "Rolled back at 50 %: it was stopped."
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("share", "seconds", "left"),
    [
        (0, -5, (1, 5, 25, 100)),
        (5, 50, (5, 25, 100)),  # it was killed a moment ago
        (5, -500, (5, 25, 100)),
        (5, -700, (1, 5, 25, 100)),  # long ago: it may be another image by now
        (7, 50, (5, 25, 100)),
        (100, 30, (25, 100)),  # nothing to compare with at 100 %
    ],
)
def test_it_continues_where_a_killed_run_was(share: int, seconds: int, left: tuple[int, ...]) -> None:
    assert tuple(rollouts.remaining((1, 5, 25, 100), [CanaryShare(share=share, seconds=seconds)])) == left


def test_after_a_promotion_it_does_not_begin_again() -> None:
    with pytest.raises(RolloutRefused, match=r"An earlier canary was promoted: 25 %.*--roll-back"):
        rollouts.remaining((1, 5), [CanaryShare(share=25, seconds=FOR_GOOD)])


def test_a_candidate_never_gets_more_than_a_stable_replica_had() -> None:
    rollouts.check_steps((1, 5, 25, 100), 1, 1)
    rollouts.check_steps((1, 5, 12), 1, 9)
    with pytest.raises(UsageError, match=r"25 % is too much for 1 next to 9 stable.*--steps 1,5,12"):
        rollouts.check_steps((1, 5, 25, 100), 1, 9)


def test_it_begins_with_what_is_there_only() -> None:
    world = World(silent="no answer")
    with pytest.raises(RolloutRefused, match="candidate http://c cannot be read: no answer"):
        rollouts.prepared(world.rollout(5))
    rollout = world.rollout(5)
    cast("Any", rollout.candidates).read = dict
    with pytest.raises(RolloutRefused, match="No candidate is at http://candidate:8000; start one"):
        rollouts.prepared(rollout)
    cast("Any", rollout.candidates).read = lambda: {"http://c": replace(world.reading("candidate", 1), ready=False)}
    with pytest.raises(RolloutRefused, match="is not ready"):
        rollouts.prepared(rollout)
    assert world.set == []
