"""
The lowest acceptance of a sound drafter: for all draft tokens of a step, and for each position of a draft.

Acceptance at a position is the share of drafts whose token there was accepted, with all tokens before it. The tables
are in `supervision_settings`, with the figures behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MTP, DSPARK = "mtp", "dspark"
"""Drafters that a checkpoint may hold, by vLLM's name of their method."""
METHOD = "speculative-config.method"
OF_MTP = ("mtp", "deepseek_mtp")
"""Names of one method; vLLM 0.32.0 calls the second deprecated."""


@dataclass(frozen=True)
class Floors:
    """The floors of one plan: `total` of all draft tokens, and `positions` of each token of a draft."""

    total: float
    positions: tuple[float, ...] = ()

    @property
    def later(self) -> float:
        """The floor of the draft tokens after the first of each draft; 0 where there are none."""
        return mean(self.positions[1:])


def floors(table: Sequence[float], draft_tokens: int, total: float | None = None) -> Floors:
    """
    Return the floors for a number of draft tokens; the last position listed holds for those after it.

    `total` replaces the mean of the positions, and no position is then held to more.
    """
    listed = [table[min(position, len(table) - 1)] for position in range(draft_tokens)] if table else []
    if total is None:
        return Floors(mean(listed), tuple(listed))
    return Floors(total, tuple(min(share, total) for share in listed))


def drafter(flags: Mapping[str, object]) -> str:
    """Return which table applies: DSpark's for its method, else MTP's."""
    return DSPARK if flags.get(METHOD) == DSPARK else MTP


def mean(shares: Sequence[float]) -> float:
    """Return the mean of some shares; 0 of none."""
    return sum(shares) / len(shares) if shares else 0.0
