"""How many starts, and how much time, a decision still takes. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import decide
from .decide import Clash, Setup, TuneTrial

FAR = 2.0
"""A setup that was not started yet is imagined so many times as fast as the one that it is laid over."""
WARM = 0.25
"""Of a first start, which compiles kernels: a second one took 18 to 23 % of it on H200 (docs/explanation/start.md)."""


@dataclass(frozen=True)
class TuneForecast:
    """About how many more starts a decision takes, and the fewest and most seconds of one; 0 before the first."""

    starts: int
    fewest: float
    most: float

    @property
    def seconds(self) -> float:
        """The fewest seconds until a decision."""
        return self.starts * self.fewest

    def __str__(self) -> str:
        counted = f"about {self.starts} start{'s' * (self.starts != 1)}"
        return f"{counted}, up to {math.ceil(self.starts * self.most / 60)} minutes" if self.most else counted


def until_decided(
    names: Sequence[str], trials: Sequence[TuneTrial], clash: Clash, seconds: float = math.inf
) -> TuneForecast:
    """Return what it takes until something wins or nothing is left, in a run of so many seconds."""
    fewest, most = start_seconds(trials)
    spent = sum(trial.seconds for trial in trials)
    imagined = list(trials)
    first = now = decide.standing(names, trials, clash, spent / seconds)
    while now.next is not None and now.best == first.best:
        imagined.append(TuneTrial(now.next, _speeds(trials, now.next)))
        spent += fewest
        now = decide.standing(names, imagined, clash, spent / seconds)
    return TuneForecast(len(imagined) - len(trials), fewest, most)


def _speeds(trials: Sequence[TuneTrial], setup: Setup) -> Mapping[int, float]:
    """Return the speeds of a further start: the geometric mean of those that the setup is compared by."""
    if found := decide.deciding(trials, setup):
        return {b: math.exp(sum(math.log(trial.speeds[b]) for trial in found) / len(found)) for b in found[0].speeds}
    return {b: FAR * speed for b, speed in _speeds(trials, setup[:-1]).items()} if setup else {1: 1.0}


def start_seconds(trials: Sequence[TuneTrial]) -> tuple[float, float]:
    """Return the fewest and most seconds of a further start: the first one may have compiled for the others."""
    first, *others = [trial.seconds for trial in trials if not trial.failed] or [0.0]
    return max(others, default=WARM * first), max(others, default=first)


def hours(names: Sequence[str], trials: Sequence[TuneTrial], clash: Clash, given: float) -> float:
    """Return how many hours, in tenths, a run takes until something is decided; more than the `given` seconds."""
    further = until_decided(names, trials, clash)
    whole = sum(trial.seconds for trial in trials) + further.starts * further.most
    return max(math.ceil(whole / 360) / 10, round(given / 3600 + 0.1, 4))
