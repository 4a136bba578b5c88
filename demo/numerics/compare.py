"""Compare what an engine answered with the reference.

The distance of a position is the largest difference of a logprob, over the tokens that the reference finds likeliest.
Rounding flips a router's choice where two experts are nearly equal, so the largest distance of all proves nothing; a
median does, and so does the largest distance where every router's choice was clear. An expert that is wrong is seen in
the median of the positions that went to it. A fault that changes less than rounding does is seen by its signature: how
much of the change that it makes, position by position, the engine's differences hold (0: nothing of it, 1: all of it).
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


FLOORS: dict[str, dict[str, float]] = {
    "cpu": {
        "short median": 0.029, "short clear": 0.059, "short/draft median": 0.136, "short/dspark median": 0.014,
        "middle median": 0.056, "middle clear": 0.163, "middle/draft median": 0.050, "middle/dspark median": 0.019,
        "long median": 0.086, "long clear": 0.233, "long/draft median": 0.102,
    },
    "gpu": {
        "short median": 0.082, "short clear": 0.226, "short/draft median": 0.134, "short/dspark median": 0.028,
        "middle median": 0.098, "middle clear": 0.267, "middle/draft median": 0.152, "middle/dspark median": 0.028,
        "long median": 0.115, "long clear": 0.415, "long/draft median": 0.131, "long/dspark median": 0.039,
    },
}  # fmt: skip
"""
What rounding alone gives, the largest of all layouts: vLLM 0.32.0 on CPU (tiny), and on 1 and 2 x H200 (flash, FP8
activations, weights of experts dequantized), 2026-11-29, and with FP8 inputs of the experts, 2026-11-30. Each expert's
own median is in `floors-SIZE.npz`.

A draft of DSpark depends on the one before it in its block, so a near tie changes the rest: only medians say something.
"""
SIGNATURE, FAR = 0.9, 0.5
"""
How much of a fault's signature is the fault: right engines hold up to 0.48 of one on CPU and 0.58 on H200 (vLLM 0.32.0,
2026-11-29), and a fault adds 1.
The largest difference that counts: a flipped expert is no rounding.
"""
EXPERT = 1.2
"""How many times its floor an expert's median may be."""
ROOM, W4A4 = 2.0, 3.0
"""How many times its floor a figure may be. Experts with FP4 activations are unmeasured: thrice that is an estimate."""


def limits(hardware: str = "cpu") -> dict[str, float]:
    """Return the largest value of each figure on `cpu`, `gpu` or `gpu-w4a4`; `signature` is that of all signatures."""
    base, _, narrow = hardware.partition("-")
    room = ROOM * (W4A4 if narrow else 1.0)
    found = {name: floor * room for name, floor in FLOORS[base].items()} | {"long expert": EXPERT * room / ROOM}
    return found if narrow else found | {"signature": SIGNATURE}


def compare(golden: Golden, got: Rows, allowed: Mapping[str, float]) -> NumericsResult:
    """Measure every table that the engine returned and hold the figures against `limits`."""
    figures: dict[str, float] = {}
    reasons: list[str] = []
    if not got:
        reasons.append("The engine returned nothing.")
    for name, table in golden.tables.items():
        if name in got:
            measured = dict(figures_of(table, got[name], golden.floors.get(name)))
            changes = {fault: values for (where, fault), values in golden.signatures.items() if where == name}
            measured |= {fault: like(table, got[name], values) for fault, values in changes.items() if measured}
            if not measured:
                reasons.append(f"{name}: the engine returned no logprobs.")
            figures |= {f"{name} {what}": value for what, value in measured.items()}
    ours = {f"{name} {fault}": allowed["signature"] for name, fault in golden.signatures if "signature" in allowed}
    for name, limit in {**allowed, **ours}.items():
        if name in figures and not figures[name] <= limit:
            reasons.append(f"{name} is {figures[name]:.3f}, and {limit:.3f} is allowed.")
    return NumericsResult(figures, tuple(reasons))


def distances(table: ReferenceTable, rows: NDArray[Any]) -> tuple[NDArray[np.float64], ReferenceTable]:
    """Return the distance of each position that the engine returned, and the table's rows of these."""
    apart, seen = differences(table, rows)
    part = ReferenceTable(*(getattr(table, field)[seen] for field in ReferenceTable.__dataclass_fields__))
    return np.where(np.isnan(apart), ABSENT, np.abs(apart)).max(axis=1, initial=0.0), part


def differences(table: ReferenceTable, rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the differences of the table's logprobs at each position that the engine returned, and these positions."""
    count = min(len(rows), len(table.margin))
    seen = np.flatnonzero(~np.isnan(rows[:count]).all(axis=1))
    theirs = np.take_along_axis(rows[seen], table.tokens[seen].astype(np.int64), axis=1).astype(np.float64)
    return theirs - table.logprobs[seen].astype(np.float64), seen


def like(table: ReferenceTable, rows: NDArray[Any], signature: NDArray[Any]) -> float:
    """Return how much of a signature the differences hold, by least squares."""
    apart, seen = differences(table, rows)
    mine, theirs = (np.clip(np.nan_to_num(values), -FAR, FAR) for values in (apart, signature[seen].astype(np.float64)))
    return float((mine * theirs).sum() / max((theirs * theirs).sum(), 1e-12))


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
