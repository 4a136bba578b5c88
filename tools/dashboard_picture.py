"""
Draw deploy/grafana/dsv4.json from what a Prometheus has, without Grafana: the same queries, titles and places.

    python -m tools.dashboard_picture http://localhost:9090 FROM TO NOTE > docs/how-to/monitoring.svg

FROM and TO are seconds since the epoch; NOTE is the last line: hardware, versions, date.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tools.colours import NOTE, SERIES
from tools.pictures import PIXEL, svg

DASHBOARD = Path(__file__).resolve().parent.parent / "deploy/grafana/dsv4.json"
COLUMN, ROW, POINTS = 42, 22, 120
NOTE_HEIGHT = 26


@dataclass(frozen=True)
class Line:
    """One series: its legend, and (seconds since the epoch, value) where it has one."""

    legend: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Span:
    """The time that a picture covers, in seconds since the epoch."""

    begin: float
    end: float

    @property
    def step(self) -> float:
        """Seconds between two points."""
        return max(1.0, (self.end - self.begin) / POINTS)


def query(client: httpx.Client, target: dict[str, Any], span: Span) -> list[Line]:
    """Return what Prometheus has for one query of a panel; variables of the dashboard stand for everything."""
    expression = re.sub(r"\$\w+", ".*", target["expr"])
    params = {"query": expression, "start": span.begin, "end": span.end, "step": span.step}
    answer = client.get("/api/v1/query_range", params=params)
    answer.raise_for_status()
    return [
        Line(
            re.sub(r"{{(\w+)}}", lambda match, labels=one["metric"]: labels.get(match[1], ""), target["legendFormat"]),
            [(when, float(value)) for when, value in one["values"] if not math.isnan(float(value))],
        )
        for one in answer.json()["data"]["result"]
    ]


def in_unit(value: float, unit: str) -> str:
    """Return a value in the unit of a panel."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    return f"{value:.4g}{' s' if unit == 's' else ''}"


def stretches(line: Line, gap: float) -> Iterator[list[tuple[float, float]]]:
    """Yield the stretches of a series that have no hole longer than `gap` seconds."""
    starts = [n for n, (a, b) in enumerate(itertools.pairwise(line.points), 1) if b[0] - a[0] > gap]
    for first, last in itertools.pairwise([0, *starts, len(line.points)]):
        if first < last:
            yield line.points[first:last]


def curves(axes: Axes, lines: list[Line], unit: str, span: Span) -> None:
    """Draw series over time, from 0 up."""
    for line, colour in zip(lines, itertools.cycle(SERIES)):
        label = line.legend.strip()
        for points in stretches(line, 2.5 * span.step):
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.5, label=label)
            label = None
    top = max((value for line in lines for _, value in line.points), default=0) or 1
    levels = MaxNLocator(3, steps=(1, 2, 5, 10)).tick_values(0, top)
    axes.set_ylim(0, levels[-1])
    axes.set_yticks(levels)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_unit(value, unit)))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.24), ncols=4, fontsize=9, borderaxespad=0)


def bars(axes: Axes, lines: list[Line], span: Span) -> None:
    """Draw when each series was there."""
    for number, (line, colour) in enumerate(zip(lines, itertools.cycle(SERIES))):
        parts = [(part[0][0], part[-1][0] - part[0][0] + span.step) for part in stretches(line, 2.5 * span.step)]
        axes.broken_barh(parts, (number - 0.3, 0.6), color=colour)
    axes.grid(visible=False)
    axes.set_yticks(range(len(lines)), [line.legend.strip() for line in lines], fontsize=10)
    axes.set_ylim(max(len(lines), 4) - 0.5, -0.5)
    if not lines:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, color=NOTE, ha="center")


def panel(axes: Axes, one: dict[str, Any], lines: list[Line], span: Span) -> None:
    """Draw one panel into its place."""
    unit = one.get("fieldConfig", {}).get("defaults", {}).get("unit", "none")
    axes.set_title(one["title"])
    if one["type"] == "stat":
        axes.set_axis_off()
        text = " of ".join(in_unit(line.points[-1][1], unit) for line in lines)
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=34, weight="bold")
        return
    bars(axes, lines, span) if one["type"] == "state-timeline" else curves(axes, lines, unit, span)
    axes.set_xlim(span.begin, span.end)
    edges = (span.begin, span.end)
    axes.set_xticks(edges, [f"{datetime.fromtimestamp(when, UTC):%H:%M:%S}" for when in edges], fontsize=9)
    for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(side)


def picture(client: httpx.Client, span: Span, note: str) -> str:
    """Return the whole dashboard as SVG."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    width = 24 * COLUMN
    height = ROW * max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in panels) + NOTE_HEIGHT
    figure = Figure(figsize=(width * PIXEL, height * PIXEL))
    for one in panels:
        place = one["gridPos"]
        x, top = place["x"] * COLUMN, height - place["y"] * ROW
        if one["type"] == "row":
            figure.text((x + 8) / width, (top - 17) / height, one["title"], fontsize=13, weight="bold")
            continue
        lines = [line for target in one["targets"] for line in query(client, target, span)]
        left, right = (150, 16) if one["type"] == "state-timeline" else (56, 16)
        above, below = 30, 50 if one["type"] == "timeseries" else 28
        size = (place["w"] * COLUMN - left - right, place["h"] * ROW - above - below)
        bounds = (x + left, top - above - size[1], *size)
        scaled = [bound / whole for bound, whole in zip(bounds, (width, height) * 2, strict=True)]
        panel(figure.add_axes((scaled[0], scaled[1], scaled[2], scaled[3])), one, lines, span)
    figure.text(8 / width, 8 / height, note, fontsize=10, color=NOTE)
    return svg(figure)


if __name__ == "__main__":
    url, first, last, note = sys.argv[1:]
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as prometheus:
        print(picture(prometheus, Span(float(first), float(last)), note), end="")
