"""What drafting was measured to be worth under load: `[[k-by-load]]` of the hardware's own file, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..catalog.catalog import ProfileFile
from ..catalog.schema import DraftTokensByLoad, Hardware
from ..draft_schedule import Load


def clause(hardware: ProfileFile[Hardware], method: str, loads: Sequence[Load]) -> str:
    """
    Return what the draft tokens of `loads` were measured to be worth on this hardware at the highest load, and where.

    Nothing is inherited from another hardware file.
    """
    rows: dict[tuple[str, int], DraftTokensByLoad] = {(one.drafter, one.tokens): one for one in hardware.own.k_by_load}
    drafting = [rows.get((method, load.draft_tokens)) for load in loads if load.draft_tokens]
    if None in drafting:
        return f"; unmeasured on {hardware.name}"
    used, without = rows.get((method, loads[-1].draft_tokens)), rows.get(("none", 0))
    return f"; {compared}" if used and without and (compared := _compared(used, without)) else ""


def _compared(used: DraftTokensByLoad, without: DraftTokensByLoad) -> str:
    """Return the times with and without drafts at the highest load that both have; nothing where they share none."""
    drafted, undrafted = dict(used.tpot_ms), dict(without.tpot_ms)
    load = max(drafted.keys() & undrafted.keys(), default=None)
    if load is None:
        return ""
    models = " and ".join(dict.fromkeys((used.model, without.model)))  # which may be others than the plan's
    return (
        f"{drafted[load]:.2f} ms a token at {load} requests, {undrafted[load]:.2f} without drafts:"
        f" {models}, {used.conditions} ({used.source}, {without.source})"
    )
