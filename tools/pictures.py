"""How the pictures of docs/ look: one style, text as text, readable in light and dark, the same bytes each time."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from tools.colours import DARK, GRID, INK, NOTE, PAPER

PIXEL = 1 / 72
"""Inches: an SVG of matplotlib's has 72 units an inch."""
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": GRID, "axes.facecolor": PAPER, "axes.labelcolor": NOTE, "axes.titlecolor": INK,
    "axes.grid": True, "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.labelsize": 11, "axes.spines.top": False, "axes.spines.right": False,
    "figure.facecolor": PAPER, "figure.dpi": 72,
    "font.family": "sans-serif", "font.size": 11, "grid.color": GRID, "legend.frameon": False,
    "legend.labelcolor": INK, "lines.linewidth": 2, "svg.fonttype": "none",
    "svg.hashsalt": "dsv4-serve", "text.color": INK,
    "xtick.color": GRID, "ytick.color": GRID, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
}  # fmt: skip
mpl.rcParams.update(_STYLE)


def title(figure: Figure, text: str, legend: Sequence[Line2D] = ()) -> None:
    """Write a title above everything else of a picture, and beneath it a legend."""
    height = figure.get_figheight() / PIXEL
    figure.text(0.01, 1 - 8 / height, text, ha="left", va="top", fontsize=14, weight="bold")
    if legend:
        figure.legend(handles=list(legend), loc="upper left", bbox_to_anchor=(0, 1 - 22 / height), ncols=len(legend))
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - (48 if legend else 30) / height)))


def note(figure: Figure, text: str) -> None:
    """Write what a picture shows beneath it: versions, conditions, date."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize=10, color=NOTE)


def svg(figure: Figure) -> str:
    """Return a figure as SVG; where a reader prefers dark, each colour is replaced by its dark one."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root, end, content = file.getvalue().partition("<svg ")[2].partition(">\n")
    root = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', root)
    lines = [line.rstrip() for line in content.splitlines()]
    return "\n".join([f"<svg {root}{end.rstrip()}", _dark(), *lines, ""])


def _dark() -> str:
    rules = (
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    )
    return f"<style>@media(prefers-color-scheme:dark){{{''.join(rules)}}}</style>"
