"""The parts of a page: plain data, which page.html lays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..bench.plot import Plot
from .eval_plot import EvalPlot


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
    """A cell in the colour of good, bad, or neither (None)."""

    good: bool | None
    kind: ClassVar[str] = "verdict"

    @property
    def colour(self) -> str:
        """The class that colours it."""
        return {True: "good", False: "bad", None: "open"}[self.good]


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
class Section:
    """Parts under a title."""

    title: str
    parts: tuple[Text | Table | Speed | Quality, ...]


@dataclass(frozen=True)
class Line:
    """One line of the summary."""

    name: str
    cells: tuple[Cell, ...]
