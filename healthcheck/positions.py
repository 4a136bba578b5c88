"""Draft acceptance by position of a draft: how it is written, and whether a drafter collapses after its first token."""

from __future__ import annotations

from ..entrypoint.draft_floors import Floors
from .state import Acceptance

EXPECTED = 10
"""Accepted tokens that a drafter at the floor of a position would have; with fewer, that position is not judged."""
COLLAPSED = (
    "it collapses after position 0: the first token of a draft is right, and those after it hardly ever,"
    " so each step computes a whole draft for one token"
)


def collapses(acceptance: Acceptance, floors: Floors, least: int = 0) -> bool:
    """
    Tell whether the first token of each draft reaches its floor, and those after it do not reach theirs.

    Never with fewer than `least` of the later draft tokens, or with fewer than EXPECTED accepted at their floor.
    """
    later = acceptance.later
    if not floors.later or later.drafted < least or later.drafted * floors.later < EXPECTED:
        return False
    first = acceptance.at[0] / acceptance.drafts
    return first >= floors.positions[0] and later.accepted < later.drafted * floors.later


def by_position(acceptance: Acceptance) -> str:
    """Return the share of drafts accepted up to each position, as text."""
    return f"by position {', '.join(f'{share:.0%}' for share in acceptance.positions)} of {acceptance.drafts} drafts"
