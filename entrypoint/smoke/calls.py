"""Judge answers with tool calls by the protocol alone: whether a client can run what came. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..client.answers import CallDelta, Reply, Stream
from .outcome import quoted

MARKUP = "DSML"
"""Of DeepSeek-V4's own form of a call, which a parser removes."""


def fault(reply: Reply, declared: Collection[str]) -> str:
    """Return what is wrong with an answer to a request with these tools, or nothing."""
    for kind, text in (("content", reply.content), ("reasoning", reply.reasoning)):
        if MARKUP in text:
            return f"{kind} has the markup of a call: {quoted(text[max(0, text.index(MARKUP) - 20) :])}"
    if reply.finish == "length":
        return ""
    if bool(reply.tool_calls) != (reply.finish == "tool_calls"):
        return f"finish_reason is {reply.finish}, with {len(reply.tool_calls)} tool calls"
    for call in reply.tool_calls:
        if problem := call_fault(call, declared):
            return problem
    ids = Counter(call["id"] for call in reply.tool_calls)
    return f"two calls have the id {ids.most_common(1)[0][0]}" if ids and max(ids.values()) > 1 else ""


def call_fault(call: Mapping[str, Any], declared: Collection[str]) -> str:
    """Return why a client cannot run a call, or nothing."""
    function = call.get("function") or {}
    if not call.get("id"):
        return f"a call without id: {quoted(str(call))}"
    if function.get("name") not in declared:
        return f"a call of {quoted(str(function.get('name')))}, which is not among the tools"
    if arguments(call) is None:
        return f"arguments that are no JSON object: {quoted(str(function.get('arguments')))}"
    return ""


def stream_fault(stream: Stream, declared: Collection[str]) -> str:
    """Return what is wrong with a stream to a request with these tools, or nothing."""
    named = [delta.index for delta in stream.deltas if delta.name]
    if named != sorted(set(named)) or {delta.index for delta in stream.deltas} != set(range(len(named))):
        return f"names came for the calls {named or 'none'} of {sorted({delta.index for delta in stream.deltas})}"
    if len([delta for delta in stream.deltas if delta.id]) != len(named):
        return "an id was sent twice, or not at all"
    return fault(stream.whole(), declared)


def arguments(call: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a call's arguments; None where they are no JSON object."""
    try:
        values = json.loads(call["function"]["arguments"])
    except (LookupError, TypeError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def meaning(reply: Reply) -> list[tuple[str, Any]]:
    """Return names and arguments of the calls, which two answers to one greedy request have in common."""
    return [(call["function"]["name"], arguments(call)) for call in reply.tool_calls]


def largest_gap(deltas: Sequence[CallDelta]) -> tuple[int, float] | None:
    """Return the most tokens and the most seconds between two deltas of one call; None where chunks count no tokens."""
    pairs = [(one, two) for one, two in pairwise(deltas) if one.index == two.index]
    tokens = [two.tokens - one.tokens for one, two in pairs if one.tokens is not None and two.tokens is not None]
    if len(tokens) < len(pairs):
        return None
    return max(tokens, default=0), max((two.at - one.at for one, two in pairs), default=0.0)


def first_difference(expected: Sequence[int], got: Sequence[int]) -> int | None:
    """Return where `got` stops repeating `expected`; None where it begins with all of it."""
    for place, token in enumerate(expected):
        if place >= len(got) or got[place] != token:
            return place
    return None
