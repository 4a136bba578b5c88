"""
What another number of draft tokens may gain, computed before anything is measured. Pure.

It only puts candidates in order. A step's milliseconds by its rows are fitted to three rows measured with W4A16 and
random routing (2 x H200, TP=2, vLLM 0.32.0, 2026-11-22, docs/results/speed.md): 8.7, 12.6 and 21.9 ms for 2, 8 and 32
rows. A row reads 6 of 256 experts. A draft token takes the drafter 0.6 ms more (8.2 ms with it, 7.0 without).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..bench import options

FIXED, ALL_EXPERTS, READ = 7.5, 26.9, 6 / 256
"""ms of a step that reads no expert; ms to read all of them; the share that a row reads."""
DRAFT = 0.6
[ACCEPTANCE] = options.ACCEPTANCE
"""The share of draft tokens that is accepted, each after the one before; assumed where none is stated."""


def step_ms(rows: int) -> float:
    """Return the milliseconds of a step of the target model."""
    return FIXED + ALL_EXPERTS * (1 - (1 - READ) ** rows)


def speed(draft_tokens: int, batch: int, acceptance: float) -> float:
    """Return tokens a millisecond of a batch."""
    tokens = sum(acceptance**position for position in range(draft_tokens + 1))
    return batch * tokens / (step_ms(batch * (draft_tokens + 1)) + DRAFT * draft_tokens)


def gain(before: int, after: int, batches: Sequence[int], acceptance: float = ACCEPTANCE) -> float:
    """Return the gain of one number of draft tokens over another, as a share; the geometric mean over batches."""
    ratios = [speed(after, batch, acceptance) / speed(before, batch, acceptance) for batch in batches]
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) - 1
