"""Compare what an engine answered with the reference.

The distance of a position is the largest difference of a logprob, over the tokens that the reference finds likeliest.
Rounding flips a router's choice where two experts are nearly equal, so the largest distance of all proves nothing; a
median does, and so does the largest distance where every router's choice was clear. An expert that is wrong is seen in
the median of the positions that went to it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .golden import Golden, Table
from .rows import Rows

CLEAR = 0.01
"""A router's margin from which rounding does not change its choice."""
FEWEST = 12
"""Positions that an expert's median needs."""
ABSENT = 20.0
"""The distance of a token that the engine did not return among its likeliest."""


@dataclass(frozen=True)
class Comparison:
    """`figures` are what was measured, by table; `reasons` why the engine is wrong, a sentence each."""

    figures: dict[str, float]
    reasons: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether every figure is within its limit."""
        return not self.reasons


FLOORS: dict[str, float] = {
    "short median": 0.029, "short clear": 0.053, "short expert": 1.72, "short/draft median": 0.202,
    "middle median": 0.056, "middle clear": 0.145, "middle expert": 1.57, "middle/draft median": 0.044,
    "long median": 0.086, "long clear": 0.233, "long expert": 1.19, "long/draft median": 0.102,
}  # fmt: skip
"""
What rounding alone gives: vLLM 0.32.0 on CPU, bf16, 2026-11-29.

The draft of the short prompt still feels that vLLM hides the first token from it.
"""
EXPERT = 1.25
"""Above the floor, for a ratio; distances may be `room` times as large."""
ROOM = {"cpu": 2.0, "gpu": 6.0, "gpu-w4a4": 18.0}
"""GPUs are unmeasured: FP8 activations are expected to round three times as much as CPUs, FP4 nine times."""


def limits(hardware: str = "cpu") -> dict[str, float]:
    """Return the largest value allowed of each figure, on hardware as ROOM names it."""
    room = ROOM[hardware]
    return {name: floor * (EXPERT if name.endswith("expert") else room) for name, floor in FLOORS.items()}


def compare(golden: Golden, got: Rows, allowed: Mapping[str, float]) -> Comparison:
    """Measure every table that the engine returned and hold the figures against `limits`."""
    figures: dict[str, float] = {}
    reasons: list[str] = []
    if not got:
        reasons.append("The engine returned nothing.")
    for name, table in golden.tables.items():
        if name in got:
            measured = dict(figures_of(table, got[name]))
            if not measured:
                reasons.append(f"{name}: the engine returned no logprobs.")
            figures |= {f"{name} {what}": value for what, value in measured.items()}
    for name, limit in allowed.items():
        if name in figures and not figures[name] <= limit:
            reasons.append(f"{name} is {figures[name]:.3f}, and {limit:.3f} is allowed.")
    return Comparison(figures, tuple(reasons))


def distances(table: Table, rows: NDArray[np.generic]) -> tuple[NDArray[np.float64], Table]:
    """Return the distance of each position that the engine returned, and the table's rows of these."""
    count = min(len(rows), len(table.margin))
    seen = np.flatnonzero(~np.isnan(rows[:count]).all(axis=1))
    part = Table(*(getattr(table, field)[seen] for field in Table.__dataclass_fields__))
    theirs = np.take_along_axis(rows[seen], part.tokens.astype(np.int64), axis=1).astype(np.float64)
    apart = np.abs(theirs - part.logprobs.astype(np.float64))
    return np.where(np.isnan(apart), ABSENT, apart).max(axis=1, initial=0.0), part


def figures_of(table: Table, rows: NDArray[np.generic]) -> Iterator[tuple[str, float]]:
    """Yield the figures of one table."""
    apart, part = distances(table, rows)
    if not len(apart):
        return
    yield "median", float(np.median(apart))
    clear = apart[part.margin > CLEAR]
    if len(clear):
        yield "clear", float(clear.max())
    worst = max(experts(apart, part.routes), default=None)
    if worst:
        yield "expert", worst[0] / max(float(np.median(apart)), 1e-9)


def experts(apart: NDArray[np.float64], routes: NDArray[np.uint8]) -> Iterator[tuple[float, int, int]]:
    """Yield median, layer and number of each expert that enough positions went to."""
    for layer in range(routes.shape[1]):
        for expert in np.unique(routes[:, layer]):
            there = apart[(routes[:, layer] == expert).any(axis=1)]
            if len(there) >= FEWEST:
                yield float(np.median(there)), layer, int(expert)
