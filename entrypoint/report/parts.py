"""The parts of a page: plain data, which page.html lays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..bench.plot import Plot
from .eval_plot import EvalPlot

Level = Literal["good", "bad", "open", "none"]
"""Passed, failed, undecided, and neither: what was skipped or is not needed. Each has its colour."""


@dataclass(frozen=True)
class Text:
    """A cell or a paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Code(Text):
    """A cell in a monospaced font."""

    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Verdict(Text):
    """A cell in the colour of its level."""

    level: Level
    kind: ClassVar[str] = "verdict"


Cell = Text | str | int | None


@dataclass(frozen=True)
class Table:
    """Rows under their headings."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Speed:
    """The plot of bench results."""

    plot: Plot
    kind: ClassVar[str] = "speed"


@dataclass(frozen=True)
class Quality:
    """The plot of evaluations."""

    shares: EvalPlot
    kind: ClassVar[str] = "quality"


@dataclass(frozen=True)
class Folded:
    """Parts behind a line that opens them."""

    title: str
    parts: tuple[Text | Table, ...]
    kind: ClassVar[str] = "folded"


Part = Text | Table | Speed | Quality | Folded


@dataclass(frozen=True)
class Section:
    """Parts under a title."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Collection:
    """All that is shown of one origin: a sentence, a table of the newest results, and sections."""

    title: str
    verdict: Verdict
    summary: Table
    sections: tuple[Section, ...]
