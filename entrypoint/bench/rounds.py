"""Rows that were measured several times: their means, and the noise of a ratio between two results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

Row = Mapping[str, Any]
Shape = tuple[int, int, int, int]
_SHAPE = ("batch", "input", "output", "history")
_NO_MEAN = (*_SHAPE, "requests", "round")


def shape(row: Row) -> Shape:
    """Return what two rows have in common that can be compared."""
    return row["batch"], row["input"], row["output"], row.get("history", 0)


def by_shape(rows: Sequence[Row]) -> dict[Shape, list[Row]]:
    """Return the rows of each shape, in the order in which the shapes were measured."""
    found: dict[Shape, list[Row]] = {}
    for row in rows:
        found.setdefault(shape(row), []).append(row)
    return found


def means(rows: Sequence[Row]) -> list[Row]:
    """Return one row for each shape: the only one, or the means of all."""
    return [same[0] if len(same) == 1 else _mean(same) for same in by_shape(rows).values()]


def _mean(rows: Sequence[Row]) -> Row:
    found = dict(rows[0])
    for name in found.keys() - {*_NO_MEAN}:
        values = [row[name] for row in rows if row.get(name) is not None]
        if name in ("by_position", "counted"):
            found[name] = [fmean(shares) for shares in zip(*values, strict=False)]
        elif values and all(isinstance(value, int | float) for value in values):
            found[name] = fmean(values)
    return found


def noise(first: Sequence[float], second: Sequence[float]) -> float | None:
    """
    Return half of the range that the ratio second / first has between rounds.

    None where each was measured once, or a first one is 0.
    """
    if len(first) + len(second) < 3 or not min(first):
        return None
    return (max(second) / min(first) - min(second) / max(first)) / 2
