"""
Decide what to measure next, and what has won. Pure, so that an interrupted run continues where it was.

First every candidate is started once, between starts of the plan itself. Those that look faster are then measured
again, in turns with what is best so far, and each that wins is kept under the next; one that is far ahead needs fewer
starts. A winner is faster beyond the noise, by Student's t at 99 % over whole starts (a start differs from the next
more than two measurements of one do), and slower than the best at no batch size.

Simulated with 12.6 % from start to start: of two candidates one of which gains 96.5 %, it wins within seven starts in
65 % of the runs (in 41 % where CLEAR is 2), within eight in 99 %. One that changes nothing wins in about 1 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

Setup = tuple[str, ...]
"""Names of candidates in the order in which they were laid over the plan; the empty one is the plan."""

PLAN: Setup = ()
REPEATS = 3
"""Starts of a winner, and of what it has to beat."""
CLEAR, CLEAR_REPEATS = 1.5, 2
"""A gain of so many thresholds wins after fewer starts."""
LEAST = 0.01
"""A smaller gain is none."""
SCREENING = 0.6
"""The share of the time after which no further candidate is tried while one waits to be confirmed."""
_T99 = (31.82, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821, 2.764, 2.718, 2.681, 2.65, 2.624, 2.602)
_T99_LATER, _T99_NORMAL = 2.602, 2.326
_LARGEST = 700.0  # whose exponential is a number


@dataclass(frozen=True)
class TuneTrial:
    """One start: output tokens a second by batch size, or why it does not count."""

    setup: Setup
    speeds: Mapping[int, float] = field(default_factory=dict)
    failed: str = ""
    seconds: float = 0.0

    @property
    def score(self) -> float:
        """The mean logarithm of the speeds, so that each batch size counts as much as any other."""
        return sum(map(math.log, self.speeds.values())) / len(self.speeds)


@dataclass(frozen=True)
class Noise:
    """The standard deviation between starts of one setup, as a share, and how many degrees of freedom it rests on."""

    deviation: float
    freedom: int

    def threshold(self, first: int, second: int) -> float:
        """Return the least difference between the mean scores of so many starts that is not noise."""
        if not self.freedom:
            return math.inf
        return max(LEAST, _t99(self.freedom) * self.deviation * math.sqrt(1 / first + 1 / second))


@dataclass(frozen=True)
class SetupComparison:
    """How much faster a setup is than another, the least that counts, and where it is slower."""

    log_gain: float
    """The difference of the mean scores, which are logarithms."""
    log_threshold: float
    slower: tuple[int, ...] = ()
    """Batch sizes."""

    @property
    def gain(self) -> float:
        """The gain as a share: 0.1 for 10 % more output tokens a second."""
        return _share(self.log_gain)

    @property
    def threshold(self) -> float:
        """The least gain that counts, as a share."""
        return _share(self.log_threshold)

    @property
    def wins(self) -> bool:
        """Whether it is faster beyond the noise, and slower nowhere."""
        return self.log_gain >= self.log_threshold and not self.slower

    @property
    def clear(self) -> bool:
        """Whether more starts would not change it."""
        return self.wins and self.log_gain >= CLEAR * self.log_threshold


def _t99(freedom: int) -> float:
    if freedom <= len(_T99):
        return _T99[freedom - 1]
    return _T99_LATER if freedom < 60 else _T99_NORMAL + 0.07


def noise(trials: Sequence[TuneTrial], value: Callable[[TuneTrial], float] = lambda trial: trial.score) -> Noise:
    """Return the noise, pooled over every setup that was started more than once."""
    squares, freedom = 0.0, 0
    counted = sorted((trial for trial in trials if not trial.failed), key=lambda trial: trial.setup)
    for _, group in groupby(counted, key=lambda trial: trial.setup):
        values = [value(trial) for trial in group]
        mean = sum(values) / len(values)
        squares += sum((one - mean) ** 2 for one in values)
        freedom += len(values) - 1
    return Noise(math.sqrt(squares / freedom) if freedom else 0.0, freedom)


def of(trials: Sequence[TuneTrial], setup: Setup) -> list[TuneTrial]:
    """Return the starts of a setup that did not fail."""
    return [trial for trial in trials if trial.setup == setup and not trial.failed]


def confirming(trials: Sequence[TuneTrial], setup: Setup) -> list[TuneTrial]:
    """Return the starts that decide: not the one that a candidate was picked for, which is fast by chance too often."""
    return of(trials, setup)[len(setup) == 1 :]


def deciding(trials: Sequence[TuneTrial], setup: Setup) -> list[TuneTrial]:
    """Return the starts that a setup is compared by: those that confirm, or the first where there are none yet."""
    return confirming(trials, setup) or of(trials, setup)


def compare(trials: Sequence[TuneTrial], before: Setup, after: Setup) -> SetupComparison:
    """Compare two setups that each have a start that counts."""
    first, second = deciding(trials, before), deciding(trials, after)
    sizes = len(first), len(second)
    gain = _mean(second, lambda trial: trial.score) - _mean(first, lambda trial: trial.score)
    slower = []
    for batch in first[0].speeds:

        def at(trial: TuneTrial, batch: int = batch) -> float:
            return math.log(trial.speeds[batch])

        if _mean(first, at) - _mean(second, at) >= noise(trials, at).threshold(*sizes):
            slower.append(batch)
    return SetupComparison(gain, noise(trials).threshold(*sizes), tuple(slower))


def decided(trials: Sequence[TuneTrial], before: Setup, after: Setup) -> bool | None:
    """Return whether a setup is faster than another; None as long as that takes more starts of one of them."""
    count = min(len(confirming(trials, setup)) for setup in (before, after))
    if count < CLEAR_REPEATS:
        return None
    found = compare(trials, before, after)
    return found.wins if count >= REPEATS or found.clear else None


def _share(difference: float) -> float:
    """Return a difference of logarithms as a share: only for small ones the two are about the same."""
    return math.expm1(difference) if difference < _LARGEST else math.inf


def _mean(trials: Sequence[TuneTrial], value: Callable[[TuneTrial], float]) -> float:
    return sum(map(value, trials)) / len(trials)


def failure(trials: Sequence[TuneTrial], name: str) -> str:
    """Return why a candidate does not count, by any of its starts; nothing if none failed."""
    return next((trial.failed for trial in trials if trial.failed and trial.setup[-1:] == (name,)), "")


Clash = Callable[[str, str], bool]


@dataclass(frozen=True)
class TuneStanding:
    """
    Where a run stands: the best setup so far, and the next to start (None: nothing is left to measure).

    `undecided` names the candidates that look faster, and that further starts may show to be so or not.
    """

    best: Setup
    next: Setup | None
    undecided: tuple[str, ...] = ()


def standing(names: Sequence[str], trials: Sequence[TuneTrial], clash: Clash, spent: float = 0.0) -> TuneStanding:
    """Return the best setup by the starts so far, and the next start; `spent` is the share of the time that is gone."""
    screened = [name for name in names if any(trial.setup == (name,) for trial in trials)]
    faster = promising(screened, trials)
    now = _confirmed(faster, trials, clash)
    plan, all_tried = len(of(trials, PLAN)), len(screened) == len(names)
    counted = any(of(trials, (name,)) for name in names)
    if plan < 1 + len(screened) // 2 or (all_tried and counted and plan < 2):
        following = PLAN
    elif not all_tried and not (now.undecided and spent > SCREENING):
        following = (next(name for name in names if name not in screened),)
    else:
        return now
    unsure = (name for name, gain in _first_gains(screened, trials).items() if gain > 0 and name not in faster)
    return TuneStanding(now.best, following, (*now.undecided, *unsure))


def _confirmed(faster: Sequence[str], trials: Sequence[TuneTrial], clash: Clash) -> TuneStanding:
    """Return the best setup so far, and the start that decides on the next candidate (None: all are decided)."""
    best, left = PLAN, [name for name in faster if not failure(trials, name)]
    while left := [name for name in left if not any(clash(name, other) for other in best)]:
        setup = (*best, left[0])
        wins = decided(trials, best, setup)
        if wins is None:
            fewer = len(confirming(trials, setup)) <= len(confirming(trials, best))
            return TuneStanding(best, setup if fewer else best, tuple(left))
        best = setup if wins else best
        left = left[1:]
    return TuneStanding(best, None)


def promising(screened: Sequence[str], trials: Sequence[TuneTrial]) -> list[str]:
    """
    Return the candidates that are measured again, the fastest first.

    Their first start was faster than the plan by more than one deviation, or was when they were started again.
    """
    least = max(LEAST, noise(trials).deviation)
    gains = _first_gains(screened, trials)
    found = [name for name, gain in gains.items() if gain >= least or confirming(trials, (name,))]
    return sorted(found, key=lambda name: -gains[name])


def _first_gains(screened: Sequence[str], trials: Sequence[TuneTrial]) -> dict[str, float]:
    """Return by how much the first start of each was faster than the plan, as logarithms; empty without the plan."""
    if not (plan := of(trials, PLAN)):
        return {}
    before = _mean(plan, lambda trial: trial.score)
    return {name: first[0].score - before for name in screened if (first := of(trials, (name,)))}
