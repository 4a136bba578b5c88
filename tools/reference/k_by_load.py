"""The table of k-by-load.md: what numbers of draft tokens are worth under load, by hardware, from the profile files."""

from __future__ import annotations

from collections.abc import Iterator

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from tools.reference.markdown import code, table

LOADS = (1, 4, 16, 64)
HEAD = ("hardware", "model", "draft tokens", *(f"{load}" for load in LOADS), "conditions", "result")


def tables() -> dict[str, str]:
    """Return the time per output token of each number of draft tokens, for each hardware file."""
    return {"k-by-load": table(HEAD, rows(Catalog([])))}


def rows(catalog: Catalog) -> Iterator[tuple[str, ...]]:
    """Yield a row for each entry, and one for hardware without any; nothing is inherited from another hardware file."""
    for hardware in catalog.every_hardware():
        if hardware.get("interconnect") == "none":
            continue
        if not hardware.own.k_by_load:
            yield code(hardware.name), "", "unmeasured", *("" for _ in LOADS), "", ""
        for one in hardware.own.k_by_load:
            found = dict(one.tpot_ms)
            cells = (f"{found[load]:.2f}" if load in found else "unmeasured" for load in LOADS)
            result = f"[{one.tokens} of {one.drafter}](../../{one.source})"
            yield code(hardware.name), code(one.model), f"{one.tokens}, {one.drafter}", *cells, one.conditions, result
