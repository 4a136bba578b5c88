"""The colours of the pictures in docs/, in light and in dark; who needs no more does not import matplotlib."""

from __future__ import annotations

import re

INK, NOTE, PAPER, GRID, BAND = "#1b1f24", "#57606a", "#ffffff", "#d8dee4", "#eef1f4"
SERIES = ("#1f6feb", "#b35900", "#1a7f37", "#8250df", "#cf222e", "#0f766e")
DARK = {INK: "#e6edf3", NOTE: "#9da7b3", PAPER: "#0d1117", GRID: "#30363d", BAND: "#161b22"} | dict(
    zip(SERIES, ("#58a6ff", "#f0883e", "#3fb950", "#bc8cff", "#ff7b72", "#2dd4bf"), strict=True)
)


def dark(text: str) -> str:
    """Return a picture with each colour replaced by its dark one."""
    return re.sub("|".join(DARK), lambda match: DARK[match[0]], text)
