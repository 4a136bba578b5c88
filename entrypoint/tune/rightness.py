"""
Whether a setup still drafts as the plan does. Pure.

The gate of `dsv4 serve` refuses garbled answers and a drafter below its floor. A half broken drafter may lie above the
floor, so the share of drafts whose first token is accepted is compared with that of the plan as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DROP = 0.1
"""By how much the share may fall. Random prompts of the same seed differ by less from start to start."""
FEWEST = 50
"""Draft tokens that a share is compared from."""
Row = Mapping[str, Any]


def drafts_less(plan: Sequence[Row], rows: Sequence[Row]) -> str:
    """Return what fell at which batch size, or nothing; rows of the same batch size are compared."""
    before = {row["batch"]: row for row in plan}
    for row in rows:
        then, now = first_accepted(before.get(row["batch"], {})), first_accepted(row)
        if then is not None and now is not None and now < then - DROP:
            share = f"{now:.0%} of the drafts have their first token accepted at batch {row['batch']}"
            return f"{share}, {then:.0%} with the plan"
    return ""


def first_accepted(row: Row) -> float | None:
    """Return the share of drafts whose first token was accepted; None where too little was drafted."""
    if row.get("drafted", 0) < FEWEST:
        return None
    shares = row.get("by_position") or [row["acceptance"]]
    return float(shares[0])
