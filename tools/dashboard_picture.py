"""
Draw deploy/grafana/dsv4.json from what a Prometheus has, without Grafana: the same queries, titles and places.

    python -m tools.dashboard_picture http://localhost:9090 FROM TO NOTE > docs/monitoring.svg

FROM and TO are seconds since the epoch; NOTE is the last line: hardware, versions, date.
"""

from __future__ import annotations

import html
import json
import math
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

DASHBOARD = Path(__file__).resolve().parent.parent / "deploy/grafana/dsv4.json"
COLUMN, ROW, GAP, LEFT, POINTS = 42, 22, 8, 46, 120
COLORS = 6
STYLE = """<style>
text{font:11px system-ui,sans-serif;fill:#1b1f24}.title{font-weight:600;font-size:12px}
.big{font-size:34px;font-weight:600}.note{fill:#57606a;font-size:10px}.back{fill:#fff}.card{fill:#fff;stroke:#d8dee4}.grid{stroke:#e7ebef}
polyline{fill:none;stroke-width:1.5}.s0{stroke:#1f6feb}.s1{stroke:#b35900}.s2{stroke:#1a7f37}.s3{stroke:#8250df}
.s4{stroke:#cf222e}.s5{stroke:#57606a}.bar{stroke-width:9}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9da7b3}.back,.card{fill:#0d1117}.card{stroke:#30363d}
.grid{stroke:#21262d}.s0{stroke:#58a6ff}.s1{stroke:#f0883e}.s2{stroke:#3fb950}.s3{stroke:#bc8cff}.s4{stroke:#ff7b72}}
</style>"""


@dataclass(frozen=True)
class Line:
    """One series: its legend, and (seconds since the epoch, value) where it has one."""

    legend: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Frame:
    """Where the curves of a panel are drawn, in pixels, and the time that they cover."""

    x: float
    y: float
    width: float
    height: float
    begin: float
    end: float

    def across(self, when: float) -> float:
        """X of a time."""
        return self.x + self.width * (when - self.begin) / (self.end - self.begin)


def ask(client: httpx.Client, target: dict[str, Any], begin: float, end: float) -> list[Line]:
    """Return what Prometheus has for one query of a panel; variables of the dashboard stand for everything."""
    query = re.sub(r"\$\w+", ".*", target["expr"])
    step = max(1.0, (end - begin) / POINTS)
    answer = client.get("/api/v1/query_range", params={"query": query, "start": begin, "end": end, "step": step})
    answer.raise_for_status()
    return [
        Line(
            re.sub(r"{{(\w+)}}", lambda found, labels=one["metric"]: labels.get(found[1], ""), target["legendFormat"]),
            [(when, float(value)) for when, value in one["values"] if not math.isnan(float(value))],
        )
        for one in answer.json()["data"]["result"]
    ]


def shown(value: float, unit: str) -> str:
    """Return a value in the unit of a panel."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    return f"{value:.4g}{' s' if unit == 's' else ''}"


def text(x: float, y: float, words: str, names: str = "", anchor: str = "start") -> str:
    """Draw words."""
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{names}" text-anchor="{anchor}">{html.escape(words)}</text>'


def runs(line: Line, gap: float) -> Iterable[list[tuple[float, float]]]:
    """Yield the stretches of a series that have no hole longer than `gap` seconds."""
    part: list[tuple[float, float]] = []
    for when, value in line.points:
        if part and when - part[-1][0] > gap:
            yield part
            part = []
        part.append((when, value))
    if part:
        yield part


def curves(lines: list[Line], unit: str, at: Frame) -> Iterable[str]:
    """Draw series over time, from 0 to a round number above the largest."""
    most = max((value for line in lines for _, value in line.points), default=0.0) or 1.0
    magnitude = 10 ** math.floor(math.log10(most))
    top = next(step * magnitude for step in (1, 2, 4, 5, 10) if step * magnitude >= most)
    for share in (0.0, 0.5, 1.0):
        y = at.y + at.height * (1 - share)
        yield f'<line class="grid" x1="{at.x:.0f}" y1="{y:.0f}" x2="{at.x + at.width:.0f}" y2="{y:.0f}"/>'
        yield text(at.x - 5, y + 4, shown(top * share, unit), "note", "end")
    for number, line in enumerate(lines):
        for part in runs(line, 2.5 * (at.end - at.begin) / POINTS):
            path = " ".join(f"{at.across(when):.1f},{at.y + at.height * (1 - v / top):.1f}" for when, v in part)
            yield f'<polyline class="s{number % COLORS}" points="{path}"/>'
    x = at.x
    for number, line in enumerate(lines):
        y = at.y + at.height + 26
        yield f'<polyline class="s{number % COLORS}" points="{x:.0f},{y - 4:.0f} {x + 14:.0f},{y - 4:.0f}"/>'
        yield text(x + 18, y, line.legend.strip(), "note")
        x += 34 + 5.6 * len(line.legend)


def bars(lines: list[Line], at: Frame) -> Iterable[str]:
    """Draw when each series was there."""
    step = min(17.0, at.height / max(1, len(lines)))
    if not lines:
        yield text(at.x, at.y + 14, "none", "note")
    for number, line in enumerate(lines):
        y = at.y + step * (number + 0.5)
        yield text(at.x + 168, y + 4, line.legend.strip(), "note", "end")
        for part in runs(line, 2.5 * (at.end - at.begin) / POINTS):
            wide = Frame(at.x + 174, at.y, at.width - 174, at.height, at.begin, at.end)
            left, right = wide.across(part[0][0]), wide.across(part[-1][0]) + 2
            yield f'<polyline class="bar s{number % COLORS}" points="{left:.1f},{y:.1f} {right:.1f},{y:.1f}"/>'


def panel(client: httpx.Client, one: dict[str, Any], begin: float, end: float) -> Iterable[str]:
    """Draw one panel, or the title of a row."""
    place, unit = one["gridPos"], one.get("fieldConfig", {}).get("defaults", {}).get("unit", "none")
    x, y, width, height = (place[key] * size for key, size in (("x", COLUMN), ("y", ROW), ("w", COLUMN), ("h", ROW)))
    if one["type"] == "row":
        yield text(x + GAP, y + 17, one["title"], "title")
        return
    card = f'width="{width - GAP}" height="{height - GAP}" rx="4"'
    yield f'<rect class="card" x="{x + GAP / 2:.0f}" y="{y + GAP / 2:.0f}" {card}/>'
    yield text(x + 14, y + 21, one["title"], "title")
    lines = [line for target in one["targets"] for line in ask(client, target, begin, end)]
    inner = Frame(x + LEFT + 8, y + 34, width - LEFT - 30, height - 80, begin, end)
    if one["type"] == "stat":
        words = " of ".join(shown(line.points[-1][1], unit) for line in lines)
        yield text(x + width / 2, y + height / 2 + 14, words, "big", "middle")
    elif one["type"] == "state-timeline":
        yield from bars(lines, Frame(x + 14, y + 34, width - 36, height - 64, begin, end))
    else:
        yield from curves(lines, unit, inner)
        clock = (time.strftime("%H:%M:%S", time.gmtime(when)) for when in (begin, end))
        for when, anchor, edge in zip(clock, ("start", "end"), (inner.x, inner.x + inner.width), strict=True):
            yield text(edge, inner.y + inner.height + 13, when, "note", anchor)


def picture(client: httpx.Client, begin: float, end: float, note: str) -> str:
    """Return the whole dashboard as SVG."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    width = 24 * COLUMN
    height = ROW * max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in panels) + 26
    parts = [part for one in panels for part in panel(client, one, begin, end)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    ground = f'<rect class="back" width="{width}" height="{height}"/>'
    return "\n".join([head, STYLE, ground, *parts, text(GAP, height - 8, note, "note"), "</svg>"])


if __name__ == "__main__":
    url, first, last, words = sys.argv[1:]
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as prometheus:
        print(picture(prometheus, float(first), float(last), words))
