"""Shares of right answers: their confidence intervals, and how two of them compare."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, sqrt
from typing import Any

Z = 1.959964
"""Normal quantile of a two-sided interval of 95%."""
LEVEL = 0.05
"""Two shares differ when chance alone would produce the difference less often than this."""
MARGIN = 0.05
"""Two shares that do not differ are the same when the whole interval of their difference is below this."""
VERDICTS = ("same", "better", "worse", "too few samples to tell")


@dataclass(frozen=True)
class Share:
    """`correct` of `total` answers; raise ValueError for impossible numbers."""

    correct: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.total or self.total < 1:
            raise ValueError(f"{self.correct} of {self.total} is not a share")

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.correct / self.total

    def interval(self) -> tuple[float, float]:
        """Return Wilson's score interval of 95%, which holds for few samples and for shares near 0 and 1."""
        n, p = self.total, self.value
        middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z / (1 + Z * Z / n) * sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    def entry(self) -> dict[str, Any]:
        """Return it for a result file."""
        bounds = [round(bound, 4) for bound in self.interval()]
        return {"correct": self.correct, "total": self.total, "interval": bounds}


def difference(ours: Share, theirs: Share) -> tuple[float, float]:
    """Return the 95% interval of `ours - theirs`, Newcombe's (1998, method 10): both Wilson intervals combined."""
    (low, high), (their_low, their_high) = ours.interval(), theirs.interval()
    between = ours.value - theirs.value
    down = sqrt((ours.value - low) ** 2 + (their_high - theirs.value) ** 2)
    up = sqrt((high - ours.value) ** 2 + (theirs.value - their_low) ** 2)
    return between - down, between + up


def chance(ours: Share, theirs: Share) -> float:
    """Return the p of Fisher's exact test, two-sided: how likely such shares are when nothing differs."""
    right, total = ours.correct + theirs.correct, ours.total + theirs.total

    def likelihood(correct: int) -> float:
        ways = _log_ways(ours.total, correct) + _log_ways(theirs.total, right - correct) - _log_ways(total, right)
        return exp(ways)

    observed = likelihood(ours.correct) * (1 + 1e-9)
    possible = range(max(0, right - theirs.total), min(ours.total, right) + 1)
    return min(1.0, sum(value for value in map(likelihood, possible) if value <= observed))


def _log_ways(total: int, chosen: int) -> float:
    return lgamma(total + 1) - lgamma(chosen + 1) - lgamma(total - chosen + 1)


def verdict(ours: Share, theirs: Share) -> str:
    """
    Return one of VERDICTS.

    `better` and `worse` need Fisher's exact test, which holds for few samples; `same` needs an interval of the
    difference that is within MARGIN of zero.
    """
    if chance(ours, theirs) < LEVEL:
        return "better" if ours.value > theirs.value else "worse"
    low, high = difference(ours, theirs)
    return "same" if low > -MARGIN and high < MARGIN else "too few samples to tell"
