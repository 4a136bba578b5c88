"""The tables of k-by-load.md: what numbers of draft tokens are worth under load, from the profile files and results."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dsv4_serve.entrypoint.catalog.catalog import Catalog, ProfileFile
from dsv4_serve.entrypoint.catalog.schema import DraftTokensByLoad, Hardware
from tools.reference.markdown import code, table

ROOT = Path(__file__).resolve().parents[2]
LOADS = (1, 4, 16, 64)
CELLS = tuple(f"{load}" for load in LOADS)
HEAD = ("hardware", "model", "draft tokens", *CELLS, "conditions", "result")
STEPS = ("hardware", "model", "draft tokens", *CELLS)
WORTH = ("hardware", "draft tokens", "instead of", *CELLS)


class Step(NamedTuple):
    """A decode step of one request: its time, and the tokens that it yielded."""

    ms: float
    tokens: float


def tables() -> dict[str, str]:
    """Return what was measured of each number of draft tokens for each hardware file, and what follows from it."""
    every = [file for file in Catalog([]).every_hardware() if file.get("interconnect") != "none"]
    return {
        "k-by-load": table(HEAD, itertools.chain.from_iterable(map(rows, every))),
        "k-by-load-steps": table(STEPS, itertools.chain.from_iterable(map(step_rows, every))),
        "k-by-load-worth": table(WORTH, itertools.chain.from_iterable(map(worth_rows, every))),
    }


def rows(hardware: ProfileFile[Hardware]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each entry, or one for hardware without any; nothing is inherited from another hardware file."""
    if not hardware.own.k_by_load:
        yield code(hardware.name), "", "unmeasured", *("" for _ in LOADS), "", ""
    for one in hardware.own.k_by_load:
        found = dict(one.tpot_ms)
        cells = (f"{found[load]:.2f}" if load in found else "unmeasured" for load in LOADS)
        result = f"[{named(one)}](../../{one.source})"
        yield code(hardware.name), code(one.model), named(one), *cells, one.conditions, result


def named(one: DraftTokensByLoad) -> str:
    """Return the number of draft tokens with their drafter."""
    return f"{one.tokens} of {one.drafter}" if one.tokens else "none"


def step_rows(hardware: ProfileFile[Hardware]) -> Iterator[tuple[str, ...]]:
    """Yield the time of a step for each entry, and the tokens that it yielded."""
    for one in hardware.own.k_by_load:
        found = steps(one)
        cells = (f"{found[load].ms:.2f} ({found[load].tokens:.2f})" if load in found else "" for load in LOADS)
        yield code(hardware.name), code(one.model), named(one), *cells


def worth_rows(hardware: ProfileFile[Hardware]) -> Iterator[tuple[str, ...]]:
    """Yield how many times the tokens of a step each number of draft tokens has to yield to beat a smaller one."""
    for more, fewer in itertools.permutations(hardware.own.k_by_load, 2):
        if fewer.tokens < more.tokens and fewer.drafter in ("none", more.drafter):
            ours, theirs = steps(more), steps(fewer)
            both = ours.keys() & theirs.keys()
            cells = (f"{ours[load].ms / theirs[load].ms:.2f}" if load in both else "" for load in LOADS)
            yield code(hardware.name), named(more), named(fewer), *cells


def steps(one: DraftTokensByLoad) -> dict[int, Step]:
    """Return the step of each load, from the rows of the entry's result."""
    result = json.loads((ROOT / one.source).read_text(encoding="utf-8"))
    return {row["batch"]: step(row, one.tokens) for row in result["rows"]}


def step(row: Mapping[str, Any], drafts: int) -> Step:
    """
    Return the step of a row: the median time per output token, times the tokens of a step.

    The first token of an answer is the prompt's. Each step after it drafts once for a request, `drafts` tokens.
    """
    count = row["requests"] * (row["output"] - 1)
    tokens = count * drafts / row["drafted"] if drafts else 1.0
    return Step(row["tpot_p50"] * tokens, tokens)
