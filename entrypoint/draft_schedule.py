"""
k by load: how many draft tokens a step has for each number of requests in it, as vLLM 0.32.0 reads the setting.

vLLM builds the schedule after the weights are loaded (v1/core/sched/scheduler.py) and answers a wrong one there. These
functions follow v1/spec_decode/dynamic/utils.py: ranges are inclusive, a gap and the end continue the range before,
and no number is larger than `num_speculative_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .plan import draft_tokens

SCHEDULE = "speculative-config.num_speculative_tokens_per_batch_size"
_FORM = "[[first, last, draft tokens], ...]"


def problem(value: Any) -> str:
    """Return why vLLM would not take a schedule; nothing for a valid one."""
    if not isinstance(value, list) or not value:
        return f"it is not a list of ranges, {_FORM}"
    if not all(isinstance(entry, list) and len(entry) == 3 and all(type(n) is int for n in entry) for entry in value):
        return f"a range is not three whole numbers, {_FORM}"
    end = 0
    for first, last, tokens in sorted(value):
        if wrong := _wrong(first, last, tokens, end):
            return f"the range {first} to {last} {wrong}"
        end = last
    return ""


def _wrong(first: int, last: int, tokens: int, end: int) -> str:
    """Return what is wrong with a range; `end` is the last number of requests of the one before, 0 for the first."""
    if not 1 <= first <= last:
        return "has to begin at 1 or more, and may not end before it begins"
    if tokens < 0:
        return f"has {tokens} draft tokens"
    if first <= end:
        return "overlaps the one before"
    return "" if end or first == 1 else "is the first one, and has to begin at 1"


@dataclass(frozen=True)
class Load:
    """The draft tokens of every step that has from `first` to `last` requests."""

    first: int
    last: int
    draft_tokens: int


def loads(schedule: Sequence[Sequence[int]], requests: int, most: int) -> list[Load]:
    """Return a valid schedule for 1 to `requests` requests, without gaps; `most` is `num_speculative_tokens`."""
    found: list[Load] = []
    ranges = sorted(schedule, key=lambda entry: entry[0])
    ends = [first - 1 for first, _, _ in ranges[1:]] + [requests]
    for (first, _, tokens), end in zip(ranges, ends, strict=True):
        last, capped = min(end, requests), min(most, tokens)
        if first > last:
            break
        if found and found[-1].draft_tokens == capped:
            found[-1] = Load(found[-1].first, last, capped)
        else:
            found.append(Load(first, last, capped))
    return found


def most(schedule: Sequence[Sequence[int]]) -> int:
    """Return the most draft tokens that a valid schedule asks for."""
    return max(tokens for _, _, tokens in schedule)


def of_plan(values: Mapping[str, Any]) -> list[Load]:
    """Return the schedule of a plan's flags; empty where draft tokens do not depend on the load."""
    schedule, most = values.get(SCHEDULE), draft_tokens(values)
    if not schedule or not most or problem(schedule):
        return []
    requests = values.get("max-num-seqs")
    return loads(schedule, requests if isinstance(requests, int) else max(last for _, last, _ in schedule), most)


def alone(values: Mapping[str, Any]) -> int:
    """Return the draft tokens of a step with one request."""
    found = of_plan(values)
    return found[0].draft_tokens if found else draft_tokens(values)


def tiers(values: Mapping[str, Any], requests: int) -> dict[int, int]:
    """Return each number of draft tokens that steps have, with the most requests in such a step."""
    return {load.draft_tokens: load.last for load in of_plan(values)} or {draft_tokens(values): requests}


def text(found: Sequence[Load]) -> str:
    """Return a schedule in words: `5 for 1 to 4 requests, 3 for 5 to 16, none for 17 to 64`."""
    counts = [str(load.first) if load.first == load.last else f"{load.first} to {load.last}" for load in found]
    counts[:1] = [f"{counts[0]} request{'s' * (found[0].last > 1)}"]
    return ", ".join(f"{load.draft_tokens or 'none'} for {count}" for load, count in zip(found, counts, strict=True))
