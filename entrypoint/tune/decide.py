"""
Decide what to measure next, and what has won. Pure, so that an interrupted run continues where it was.

First every candidate is started once, between starts of the plan itself. Those that look faster are then measured
again, in turns with what is best so far, and each that wins is kept under the next; one that is far ahead needs fewer
starts. A winner is faster beyond the noise, by Student's t at 99 % over whole starts (a start differs from the next
more than two measurements of one do), and slower than the best at no batch size.
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
CLEAR, CLEAR_REPEATS = 2.0, 2
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
    """Where a run stands: the best setup so far, and the next to start (None: nothing is left to measure)."""

    best: Setup
    next: Setup | None


def standing(names: Sequence[str], trials: Sequence[TuneTrial], clash: Clash, spent: float = 0.0) -> TuneStanding:
    """Return the best setup by the starts so far, and the next start; `spent` is the share of the time that is gone."""
    screened = [name for name in names if any(trial.setup == (name,) for trial in trials)]
    faster = promising(screened, trials)
    best, undecided = _best(faster, trials, clash)
    plan, all_tried = len(of(trials, PLAN)), len(screened) == len(names)
    counted = any(of(trials, (name,)) for name in names)
    if plan < 1 + len(screened) // 2 or (all_tried and counted and plan < 2):
        return TuneStanding(best, PLAN)
    if not all_tried and not (faster and spent > SCREENING):
        return TuneStanding(best, (next(name for name in names if name not in screened),))
    return TuneStanding(best, undecided)


def _best(faster: Sequence[str], trials: Sequence[TuneTrial], clash: Clash) -> tuple[Setup, Setup | None]:
    """Return the best setup so far, and the start that decides on the next candidate (None: all are decided)."""
    best = PLAN
    for name in faster:
        setup = (*best, name)
        if any(clash(name, other) for other in best) or any(t.failed and t.setup == setup for t in trials):
            continue
        counts = len(confirming(trials, setup)), len(confirming(trials, best))
        sure = min(counts) >= CLEAR_REPEATS and compare(trials, best, setup).clear
        if min(counts) < REPEATS and not sure:
            return best, setup if counts[0] <= counts[1] else best
        if compare(trials, best, setup).wins:
            best = setup
    return best, None


def promising(screened: Sequence[str], trials: Sequence[TuneTrial]) -> list[str]:
    """Return candidates whose first start was faster than the plan by more than one deviation, the fastest first."""
    plan = of(trials, PLAN)
    if not plan:
        return []
    between = noise(plan).deviation
    gains = {}
    for name in screened:
        if first := of(trials, (name,))[:1]:
            gain = first[0].score - _mean(plan, lambda trial: trial.score)
            if gain >= max(LEAST, between):
                gains[name] = gain
    return sorted(gains, key=lambda name: -gains[name])
