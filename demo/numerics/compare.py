"""Compare what an engine answered with the reference.

The distance of a position is the largest difference of a logprob, over the tokens that the reference finds likeliest.
Rounding flips a router's choice where two experts are nearly equal, so the largest distance of all proves nothing; a
median does, and so does the largest distance where every router's choice was clear. An expert that is wrong is seen in
the median of the positions that went to it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .golden import Golden, ReferenceTable
from .rows import Rows

CLEAR = 0.01
"""A router's margin from which rounding does not change its choice."""
FEWEST = 100
"""Positions that an expert's median needs."""
ABSENT = 20.0
"""The distance of a token that the engine did not return among its likeliest."""


@dataclass(frozen=True)
class NumericsResult:
    """`figures` are what was measured, by table; `reasons` why the engine is wrong, a sentence each."""

    figures: dict[str, float]
    reasons: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether every figure is within its limit."""
        return not self.reasons


FLOORS: dict[str, float] = {
    "short median": 0.029, "short clear": 0.053, "short/draft median": 0.202,
    "middle median": 0.056, "middle clear": 0.145, "middle/draft median": 0.044,
    "long median": 0.086, "long clear": 0.233, "long/draft median": 0.102,
}  # fmt: skip
"""
What rounding alone gives: vLLM 0.32.0 on CPU, bf16, 2026-11-29. Each expert's own median is in `floors-SIZE.npz`.

The draft of the short prompt still feels that vLLM hides the first token from it.
"""
EXPERT = 1.2
"""How many times its floor an expert's median may be."""
ROOM = {"cpu": 2.0, "gpu": 6.0, "gpu-w4a4": 18.0}
"""GPUs are unmeasured: FP8 activations are expected to round three times as much as CPUs, FP4 nine times."""


def limits(hardware: str = "cpu") -> dict[str, float]:
    """Return the largest value allowed of each figure, on hardware as ROOM names it."""
    room = ROOM[hardware]
    return {name: floor * room for name, floor in FLOORS.items()} | {"long expert": EXPERT * room / ROOM["cpu"]}


def compare(golden: Golden, got: Rows, allowed: Mapping[str, float]) -> NumericsResult:
    """Measure every table that the engine returned and hold the figures against `limits`."""
    figures: dict[str, float] = {}
    reasons: list[str] = []
    if not got:
        reasons.append("The engine returned nothing.")
    for name, table in golden.tables.items():
        if name in got:
            measured = dict(figures_of(table, got[name], golden.floors.get(name)))
            if not measured:
                reasons.append(f"{name}: the engine returned no logprobs.")
            figures |= {f"{name} {what}": value for what, value in measured.items()}
    for name, limit in allowed.items():
        if name in figures and not figures[name] <= limit:
            reasons.append(f"{name} is {figures[name]:.3f}, and {limit:.3f} is allowed.")
    return NumericsResult(figures, tuple(reasons))


def distances(table: ReferenceTable, rows: NDArray[Any]) -> tuple[NDArray[np.float64], ReferenceTable]:
    """Return the distance of each position that the engine returned, and the table's rows of these."""
    count = min(len(rows), len(table.margin))
    seen = np.flatnonzero(~np.isnan(rows[:count]).all(axis=1))
    part = ReferenceTable(*(getattr(table, field)[seen] for field in ReferenceTable.__dataclass_fields__))
    theirs = np.take_along_axis(rows[seen], part.tokens.astype(np.int64), axis=1).astype(np.float64)
    apart = np.abs(theirs - part.logprobs.astype(np.float64))
    return np.where(np.isnan(apart), ABSENT, apart).max(axis=1, initial=0.0), part


def figures_of(table: ReferenceTable, rows: NDArray[Any], floor: NDArray[Any] | None) -> Iterator[tuple[str, float]]:
    """Yield the figures of one table; `floor` has each expert's median with rounding alone."""
    apart, part = distances(table, rows)
    if not len(apart):
        return
    yield "median", float(np.median(apart))
    clear = apart[part.margin > CLEAR]
    if len(clear):
        yield "clear", float(clear.max())
    if floor is not None:
        ratios = experts(apart, part.routes, floor.shape) / floor
        if not np.isnan(ratios).all():
            yield "expert", float(np.nanmax(ratios))


def experts(apart: NDArray[np.float64], routes: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the median distance of the positions that went to each expert, [layer, expert]; NaN for too few."""
    medians = np.full(shape, np.nan)
    for layer, expert in np.ndindex(*shape):
        there = apart[(routes[:, layer] == expert).any(axis=1)]
        if len(there) >= FEWEST:
            medians[layer, expert] = np.median(there)
    return medians
