"""Rows that look as if an engine stalled in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from tools.engines.result import At, Row, named
from tools.engines.sessions import Comparison


def stalls(found: Iterable[Comparison]) -> Iterator[str]:
    """Yield the rows that look like a stall, and are not marked."""
    for one, side in itertools.chain.from_iterable(((one, one.ours), (one, one.theirs)) for one in found):
        for at, row in side.result.rows.items():
            if at not in one.marks and (why := _why(at, row)):
                yield f"{side.result.name}: {named(at)}: {why}"


def _why(at: At, row: Row) -> str:
    """Return why a row looks like a stall; empty where it does not."""
    if row["ttft_p99"] > 3 * row["ttft_p50"] + 1000:
        return f"TTFT {row['ttft_p50']:,.0f} ms at p50, {row['ttft_p99']:,.0f} at p99"
    implied = 1000 * at.batch * row["output"] / (row["ttft_p50"] + (row["output"] - 1) * row["tpot_p50"])
    if row["output_tokens_per_second"] < 0.8 * implied:
        return f"{row['output_tokens_per_second']:,.0f} tokens a second, {implied:,.0f} by the medians"
    return ""
