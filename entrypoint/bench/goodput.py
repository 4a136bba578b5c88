"""Limits that a good request keeps (`vllm bench serve --goodput`), and how many of the measured requests did."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import UsageError

NAMES = ("ttft", "tpot", "e2el")
"""Time to first token, time per output token after it, and the whole request, as vLLM names them; in ms."""
ENOUGH = 0.99
"""The share of requests that a batch has to serve within the limits."""
Limits = Mapping[str, float]


def limits(options: Iterable[str]) -> dict[str, float]:
    """Return the limits in ms of options such as `ttft:2000`, by name; raise UsageError for an invalid one."""
    found: dict[str, float] = {}
    for option in options:
        name, _, text = option.partition(":")
        if name not in NAMES:
            raise UsageError(f"--goodput {option}: use NAME:MS, such as ttft:2000; NAME is ttft, tpot or e2el.")
        if name in found:
            raise UsageError(f"--goodput {option}: {name} is given twice; give one limit for each name.")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise UsageError(f"--goodput {option}: the limit must be a number of milliseconds above 0.")
        found[name] = value
    return found


def arguments(limits: Limits) -> list[str]:
    """Return the arguments of `vllm bench serve` for these limits."""
    return ["--goodput", *(f"{name}:{value}" for name, value in limits.items())] if limits else []


def described(limits: Limits) -> str:
    """Return the limits as text, such as `TTFT 2,000 ms and TPOT 50 ms`."""
    return " and ".join(f"{name.upper()} {value:,.10g} ms" for name, value in limits.items())


def cell(row: Mapping[str, Any]) -> str:
    """Return the share and the rate of a row's good requests, as text."""
    share, rate = row.get("good_share"), row.get("request_goodput")
    return "-" if share is None or rate is None else f"{share:.1%} ({rate:.2f}/s)"


def summary(rows: Sequence[Mapping[str, Any]], limits: Limits) -> str:
    """Return a sentence that names the largest batch that keeps the limits, for each prompt length."""
    lengths = dict.fromkeys(map(_length, rows))
    largest = {length: _largest(row for row in rows if _length(row) == length) for length in lengths}
    named = [f"{batch or 'none'} with {length:,} tokens in" for length, batch in largest.items()]
    return (
        f"The largest batch with at least {ENOUGH:.0%} of the requests within {described(limits)}: {', '.join(named)}."
    )


def _length(row: Mapping[str, Any]) -> int:
    return int(row["input"]) + int(row.get("history", 0))


def _largest(rows: Iterable[Mapping[str, Any]]) -> int | None:
    return max((row["batch"] for row in rows if (row.get("good_share") or 0) >= ENOUGH), default=None)
