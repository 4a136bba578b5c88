"""A plot of bench results: output tokens per second and time per token over the batch size, as SVG text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 400, 240, 60, 40, 70  # px: one chart, and what is around it
_LINE = 18  # px of a line in the legend
_COLOURS = ("#0b5fa5", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0f766e")
_CHARTS = (
    ("output tokens per second", "output_tokens_per_second"),
    ("time per output token, p50, ms", "tpot_p50"),
)
Result = Mapping[str, Any]


@dataclass(frozen=True)
class _Axes:
    """One chart: where it stands, the batch sizes along it, and the figure at its top."""

    left: float
    batches: tuple[int, ...]
    most: float

    def at(self, batch: int, figure: float) -> tuple[float, float]:
        """Return the point of a figure; batch sizes stand evenly, as they are doubled rather than added to."""
        step = _WIDTH / max(1, len(self.batches) - 1)
        x = self.left + (self.batches.index(batch) * step if len(self.batches) > 1 else _WIDTH / 2)
        return round(x, 1), round(_TOP + _HEIGHT * (1 - figure / self.most), 1)


def svg(results: Sequence[Result]) -> str:
    """Return the plot of results that have rows; one line for each result and input length."""
    lines = [
        (f"{result['subject']}, {length} in ({result['date'][:10]})", rows)
        for result in results
        for length in dict.fromkeys(row["input"] for row in result["rows"])
        if (rows := [row for row in result["rows"] if row["input"] == length])
    ]
    batches = tuple(sorted({row["batch"] for _, rows in lines for row in rows}))
    width = 2 * (_LEFT + _WIDTH) + _GAP
    height = _TOP + _HEIGHT + 50 + _LINE * len(lines)
    box = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (title, figure) in enumerate(_CHARTS):
        most = _round_up(max(row[figure] for _, rows in lines for row in rows))
        axes = _Axes(_LEFT + number * (_WIDTH + _LEFT + _GAP / 2), batches, most)
        parts += [*_frame(axes, title), *_curves(axes, figure, lines)]
    for number, (name, _) in enumerate(lines):
        y = _TOP + _HEIGHT + 50 + _LINE * number
        parts.append(f'<rect x="{_LEFT}" y="{y - 8}" width="14" height="4" fill="{_colour(number)}"/>')
        parts.append(f'<text x="{_LEFT + 20}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _frame(axes: _Axes, title: str) -> Iterator[str]:
    yield f'<text x="{axes.left}" y="{_TOP - 16}" font-weight="bold">{title}</text>'
    for part in range(5):
        figure = axes.most * part / 4
        _, y = axes.at(axes.batches[0], figure)
        yield f'<line x1="{axes.left}" y1="{y}" x2="{axes.left + _WIDTH}" y2="{y}" stroke="#ddd"/>'
        yield f'<text x="{axes.left - 6}" y="{y + 4}" text-anchor="end">{figure:g}</text>'
    for batch in axes.batches:
        x, _ = axes.at(batch, 0)
        yield f'<text x="{x}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{batch}</text>'


def _curves(axes: _Axes, figure: str, lines: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Iterator[str]:
    for number, (_, rows) in enumerate(lines):
        points = [axes.at(row["batch"], row[figure]) for row in sorted(rows, key=lambda row: int(row["batch"]))]
        path = " ".join(f"{x},{y}" for x, y in points)
        yield f'<polyline points="{path}" fill="none" stroke="{_colour(number)}" stroke-width="2"/>'
        yield from (f'<circle cx="{x}" cy="{y}" r="3" fill="{_colour(number)}"/>' for x, y in points)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _round_up(figure: float) -> float:
    """Return the next 1, 2, 4 or 8 times a power of ten, so that quarters of it are short numbers; 1 for 0."""
    if not figure:
        return 1.0
    power = 1.0
    while figure > 8 * power:
        power *= 10
    while figure <= 0.8 * power:
        power /= 10
    return next(step * power for step in (1, 2, 4, 8) if figure <= step * power)
