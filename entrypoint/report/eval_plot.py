"""A plot of evaluations as SVG: each share with its interval, the published ones beneath it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _LEFT, _RIGHT, _LINE, _TOP = 420, 250, 150, 20, 24  # px: the scale, what is beside it, a line, the axis above
Receipt = Mapping[str, Any]


def svg(found: Sequence[Receipt]) -> str:
    """Return the plot of the first metric of each receipt; colours come from the page around it."""
    lines = [line for receipt in found for line in _lines(receipt)]
    height = _TOP + _LINE * len(lines) + 8
    box = f'viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" font-size="12"'
    about = 'role="img" aria-label="share of right answers with its 95% interval"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {box} {about}>']
    for percent in range(0, 101, 20):
        x = _at(percent / 100)
        parts.append(f'<line x1="{x}" y1="{_TOP - 6}" x2="{x}" y2="{height}" class="grid"/>')
        parts.append(f'<text x="{x}" y="{_TOP - 10}" text-anchor="middle">{percent}%</text>')
    for number, (name, share, kind) in enumerate(lines):
        parts += _line(_TOP + _LINE * number + 12, name, share, kind)
    return "\n".join([*parts, "</svg>"])


def _lines(receipt: Receipt) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    score = receipt["scores"][0]
    yield f"{receipt['subject']}, {receipt['date'][:10]}", score, "ours"
    for figure in score["published"]:
        yield "published", figure, "theirs"


def _line(y: int, name: str, share: Mapping[str, Any], kind: str) -> Iterator[str]:
    low, high = share["interval"]
    value = share["correct"] / share["total"]
    yield f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end" class="{kind}">{escape(name)}</text>'
    yield f'<line x1="{_at(low)}" y1="{y}" x2="{_at(high)}" y2="{y}" stroke-width="2" class="{kind}"/>'
    yield f'<circle cx="{_at(value)}" cy="{y}" r="4" class="{kind}"/>'
    right = f"{value:.1%} of {share['total']}"
    yield f'<text x="{_LEFT + _WIDTH + 12}" y="{y + 4}" class="{kind}">{right}</text>'


def _at(share: float) -> float:
    return round(_LEFT + _WIDTH * share, 1)
