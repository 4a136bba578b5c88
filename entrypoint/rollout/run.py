"""
Raise the share of the candidates step by step, and promote or roll back.

The share at the balancer applies for LEASE seconds and is renewed with every reading: where this process ends without
a word, requests return to the stable replicas.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..client.errors import RequestFailed
from ..client.local_replica import Stopped, ignore_stops, stops_raise
from ..errors import UsageError, UserError
from .balancers import FOR_GOOD, Balancers, CanaryShare
from .judge import CanaryFinding, CanaryLimits
from .reading import Tally
from .replicas import ReplicaSet
from .step import CanaryStep

log = logging.getLogger(__name__)

LEASE = 60
RESUMED = 600
"""Seconds after the end of a lease in which another run continues at its share."""
PATIENCE = 3
"""As many times its length may a step take while evidence is missing."""
_LOST = 3
"""Polls in a row in which a balancer may be unreachable."""
_MOST_POLL, _POLLS = 5.0, 20


class RolloutRefused(UserError):
    """A canary cannot begin: something has to be there first."""


@dataclass(frozen=True)
class Rollout:
    """A canary: both sides, the balancers before them, and how it goes on."""

    stable: ReplicaSet
    candidates: ReplicaSet
    balancers: Balancers
    steps: Sequence[int]
    seconds: float
    """The length of a step."""
    limits: CanaryLimits = field(default_factory=CanaryLimits)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    @property
    def poll(self) -> float:
        """Seconds between two readings."""
        return min(_MOST_POLL, self.seconds / _POLLS)


@dataclass(frozen=True)
class StepOutcome:
    """How a step ended; the tallies are those that its findings compare."""

    share: int
    seconds: float
    new: Tally
    stable: Tally
    findings: tuple[CanaryFinding, ...]

    @property
    def good(self) -> bool:
        """Whether every rule is satisfied."""
        return bool(self.findings) and all(one.state == "good" for one in self.findings)


@dataclass
class RolloutOutcome:
    """How a canary ended: `share` is what the balancers have now; `stopped` is the signal that ended it."""

    steps: list[StepOutcome] = field(default_factory=list)
    promoted: bool = False
    share: int = 0
    stopped: int = 0
    not_reset: str = ""
    """Why a balancer could not be told to roll back."""


def prepared(rollout: Rollout) -> tuple[Sequence[int], int]:
    """
    Return the steps that remain, and the number of candidates.

    Raise RolloutRefused or RequestFailed where it cannot begin, UsageError for steps that candidates cannot take.
    """
    stable = _present(rollout.stable, "stable replica", "--stable", ready=False)
    candidates = _present(rollout.candidates, "candidate", "--candidate", ready=True)
    shares = rollout.balancers.shares()
    check_steps(rollout.steps, candidates, stable)
    return remaining(rollout.steps, list(shares.values())), candidates


def _present(side: ReplicaSet, noun: str, option: str, *, ready: bool) -> int:
    found = side.read()
    if not found:
        raise RolloutRefused(f"No {noun} is at {', '.join(side.urls)}; start one, or name it with {option}.")
    for address, one in found.items():
        if isinstance(one, str):
            raise RolloutRefused(f"The {noun} {address} cannot be read: {one}")
        if ready and not one.ready:
            raise RolloutRefused(f"The {noun} {address} is not ready; wait for its /readyz.")
    return len(found)


def check_steps(steps: Sequence[int], candidates: int, stable: int) -> None:
    """Raise UsageError for a step that gives a candidate more requests than a stable replica had without candidates."""
    most = math.ceil(100 * candidates / stable)
    if too_high := [step for step in steps if step > most]:
        fitting = ",".join(str(step) for step in [*(step for step in steps if step < most), min(most, 100)])
        raise UsageError(
            f"A share of {too_high[0]} % is too much for {candidates} next to {stable} stable: each candidate would get"
            f" more than a stable replica had. Pass --steps {fitting}, or start more candidates."
        )


def remaining(steps: Sequence[int], shares: Sequence[CanaryShare]) -> Sequence[int]:
    """Return the steps from the one that an earlier run was in; raise RolloutRefused after a promotion."""
    if any(one.seconds > LEASE and one.share for one in shares):
        raise RolloutRefused(
            f"An earlier canary was promoted: {max(one.share for one in shares)} % of requests go to the candidates."
            " Give the stable replicas that image, then run `dsv4 canary --roll-back`."
        )
    before = min(one.share if one.seconds > -RESUMED else 0 for one in shares)
    reached = [number for number, step in enumerate(steps) if step <= before and step < 100]
    return steps[reached[-1] :] if reached else steps


def run(rollout: Rollout, steps: Sequence[int]) -> RolloutOutcome:
    """Take the steps; promote after the last, or roll back at the first that fails. A signal rolls back too."""
    outcome, baseline = RolloutOutcome(), Tally()
    with stops_raise(once=True):
        try:
            for share in steps:
                log.info("%d %% of requests go to the candidates, for %.3g min", share, rollout.seconds / 60)
                done, baseline = _step(rollout, share, baseline, outcome)
                if not done.good:
                    break
            else:
                rollout.balancers.set(steps[-1], FOR_GOOD)
                outcome.promoted, outcome.share = True, steps[-1]
        except Stopped as stopped:
            outcome.stopped = stopped.exit_status - 128
        except RequestFailed as error:
            lost = CanaryFinding("balancer", "missing", f"the balancer does not take the share ({error})")
            outcome.steps.append(StepOutcome(outcome.steps[-1].share, 0.0, Tally(), Tally(), (lost,)))
        finally:
            ignore_stops()
            if not outcome.promoted:
                outcome.not_reset = roll_back(rollout.balancers)
    return outcome


def roll_back(balancers: Balancers) -> str:
    """Send everything to the stable replicas; return why a balancer could not be told, whose lease ends by itself."""
    try:
        balancers.set(0, 1)
    except RequestFailed as error:
        return str(error)
    return ""


def _step(rollout: Rollout, share: int, baseline: Tally, outcome: RolloutOutcome) -> tuple[StepOutcome, Tally]:
    """Take one step and return how it ended, and what the next one can compare with."""
    step, lost, number = CanaryStep(share, rollout.clock(), baseline), 0, len(outcome.steps)
    findings: tuple[CanaryFinding, ...] = ()
    outcome.steps.append(StepOutcome(share, 0.0, step.new, step.stable, findings))
    rollout.balancers.set(share, LEASE)
    while True:
        took = rollout.clock() - step.began
        try:
            rollout.balancers.set(share, LEASE)
            counted, lost = rollout.balancers.traffic(), 0
            step.add(rollout.candidates.read(), rollout.stable.read(), counted)
            findings = step.findings(rollout.limits)
        except RequestFailed as error:
            lost += 1
            gone = CanaryFinding("balancer", "missing", f"the balancer cannot be read ({error})", certain=lost >= _LOST)
            findings = (*(one for one in findings if one.rule != "balancer"), gone)
        compared = step.compared_with(rollout.limits)
        outcome.steps[number:] = [StepOutcome(share, took, step.new, compared, findings)]
        if ended(findings, took, rollout.seconds):
            return outcome.steps[number], compared
        rollout.sleep(rollout.poll)


def ended(findings: Sequence[CanaryFinding], took: float, seconds: float) -> bool:
    """Tell whether a step is over: its time is, or a finding is certain; missing evidence gets more time."""
    if any(one.certain for one in findings):
        return True
    missing = any(one.state == "missing" for one in findings)
    return took >= seconds * (PATIENCE if missing else 1)
