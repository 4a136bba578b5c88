"""
Plot bench results: output tokens per second and time per token over the batch size.

Our own geometry and a template replace matplotlib, which takes 0.65 s and 55 MiB to import, needs 90 MB in addition to
NumPy (3.11.2, 2 CPU cores, 2026-11-28), and draws in colours that do not follow a page from light to dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import templates
from . import rounds

FOLDER = Path(__file__).resolve().parent
"""The folder of plot.svg, whose macros other pages use."""
COLOURS = 6
_WIDTH, _HEIGHT, _LEFT, _TOP = 350, 230, 72, 40  # px: the plotting area of a chart, and what is left of and above it
_CHARTS = (
    ("output speed", "output tokens/s", "output_tokens_per_second"),
    ("time per output token, p50", "ms", "tpot_p50"),
)
_STEPS = (1, 2, 2.5, 5, 10)
Result = Mapping[str, Any]
_Line = tuple[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Curve:
    """The points of one line of the legend, in pixels of its chart."""

    colour: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """One figure over the batch size, in `unit`. `levels` and `batches` are labels with their positions."""

    title: str
    unit: str
    levels: tuple[tuple[float, str], ...]
    batches: tuple[tuple[float, str], ...]
    curves: tuple[Curve, ...]
    left: int = _LEFT
    top: int = _TOP
    right: int = _LEFT + _WIDTH
    bottom: int = _TOP + _HEIGHT
    width: int = _LEFT + _WIDTH + 20
    height: int = _TOP + _HEIGHT + 48


@dataclass(frozen=True)
class Plot:
    """Both charts, the legend (the colour of each line and what it is), and how many lines are not drawn."""

    charts: tuple[Chart, ...]
    legend: tuple[tuple[int, str], ...]
    left_out: int = 0


def svg(results: Sequence[Result]) -> str:
    """Return the plot of results that have rows as a file of its own."""
    return templates.environment(FOLDER).get_template("plot.svg").render(plot=plot(results))


def plot(results: Sequence[Result], most: int | None = None) -> Plot:
    """Return the plot of results that have rows: a line for each result and input length, of these the first `most`."""
    lines = [
        (f"{result['subject']}, {length:,} tokens in ({result['date'][:10]})", rows)
        for result in results
        for length in dict.fromkeys(row["input"] for row in result["rows"])
        if (rows := [row for row in rounds.means(result["rows"]) if row["input"] == length])
    ]
    drawn = lines[:most]
    legend = tuple((number % COLOURS, name) for number, (name, _) in enumerate(drawn))
    return Plot(tuple(_chart(*chart, drawn) for chart in _CHARTS), legend, len(lines) - len(drawn))


def _chart(title: str, unit: str, figure: str, lines: Sequence[_Line]) -> Chart:
    batches = sorted({row["batch"] for _, rows in lines for row in rows})
    step, top = _scale(max(row[figure] for _, rows in lines for row in rows))
    across = {batch: _across(number, len(batches)) for number, batch in enumerate(batches)}
    return Chart(
        title,
        unit,
        levels=tuple((_up(number * step / top), _number(number * step)) for number in range(round(top / step) + 1)),
        batches=tuple((x, str(batch)) for batch, x in across.items()),
        curves=tuple(
            Curve(number % COLOURS, tuple((across[row["batch"]], _up(row[figure] / top)) for row in _in_order(rows)))
            for number, (_, rows) in enumerate(lines)
        ),
    )


def _in_order(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return iter(sorted(rows, key=lambda row: int(row["batch"])))


def _across(number: int, count: int) -> float:
    """Return the x of a batch size; they are evenly spaced, as each usually doubles the last."""
    return round(_LEFT + (number * _WIDTH / (count - 1) if count > 1 else _WIDTH / 2), 1)


def _up(share: float) -> float:
    return round(_TOP + _HEIGHT * (1 - share), 1)


def _scale(figure: float) -> tuple[float, float]:
    """Return the step between ticks and the top of an axis: four to seven ticks at short numbers; (0.25, 1) for 0."""
    if not figure:
        return 0.25, 1.0
    power = 10.0 ** math.floor(math.log10(figure / 5))
    step = next(short * power for short in _STEPS if figure / 5 <= short * power)
    return step, step * math.ceil(figure / step)


def _number(figure: float) -> str:
    return f"{figure:,.10g}"
