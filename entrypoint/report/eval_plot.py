"""Plot evaluations: each share with its interval, then the published ones. bench/plot.py has the reason for SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WIDTH, _LEFT, _LINE, _BOTTOM = 400, 20, 40, 48  # px: the scale, left of it, a line, below
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Interval:
    """One line: its name and figure above, its interval and value along the scale."""

    name: str
    figure: str
    low: float
    value: float
    high: float
    y: int
    kind: str
    """The class that colours it: `ours` or `theirs`."""


@dataclass(frozen=True)
class EvalPlot:
    """The plot of the first metric of each result; `ticks` are percentages with their positions."""

    lines: tuple[Interval, ...]
    ticks: tuple[tuple[float, str], ...]
    bottom: int
    height: int
    width: int = _WIDTH + 2 * _LEFT
    left: int = _LEFT


def shares(results: Sequence[Result]) -> EvalPlot:
    """Return the plot of results that have scores."""
    entries = [entry for result in results for entry in _shares(result)]
    lines = tuple(_line(number, *entry) for number, entry in enumerate(entries))
    ticks = tuple((_at(percent / 100), f"{percent}%") for percent in range(0, 101, 20))
    bottom = _LINE * len(lines) + 8
    return EvalPlot(lines, ticks, bottom, bottom + _BOTTOM)


def _shares(result: Result) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    score = result["scores"][0]
    yield f"{result['subject']}, {result['date'][:10]}", score, "ours"
    for figure in score["published"]:
        yield "published", figure, "theirs"


def _line(number: int, name: str, share: Mapping[str, Any], kind: str) -> Interval:
    low, high = share["interval"]
    value = share["correct"] / share["total"]
    figure = f"{value:.1%} of {share['total']}"
    return Interval(name, figure, _at(low), _at(value), _at(high), _LINE * number + 28, kind)


def _at(share: float) -> float:
    return round(_LEFT + _WIDTH * share, 1)
