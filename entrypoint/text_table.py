"""Format rows as a table of text."""

from __future__ import annotations

from collections.abc import Sequence

WIDEST = 44
"""Characters; a longer cell does not widen its column."""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return left-aligned columns, two spaces apart."""
    widths = [min(max(len(row[i]) for row in rows), WIDEST) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
