"""Check the second turn of a conversation with tools: its prompt repeats the first turn, from the prefix cache."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from ..client.errors import Refused
from ..client.vllm import VllmClient
from . import calls
from .context import Context
from .needles import filler
from .outcome import Outcome, failed, passed, quoted, skipped
from .tools import PATCHES, no_call, request, with_tools

CACHE = "leave --enable-prefix-caching on; a balancer may have sent the second turn to another replica"


@with_tools
async def history(client: VllmClient, context: Context) -> Outcome:
    """In each mode, the second prompt begins with prompt and answer of the first turn, and most of it is cached."""
    prompts = context.prompts["tools"]["history"]
    if context.context_length and context.context_length < prompts["least-context"]:
        return skipped(f"the context of {context.context_length} tokens is too small for two turns")
    seen, figures = [], {}
    for mode in prompts["modes"]:
        if mode != "chat" and context.lacks("reasoning-parser"):
            continue
        outcome = await _two_turns(client, context, mode)
        if outcome.verdict != "passed":
            return outcome
        seen.append(f"{mode}: {outcome.seen}")
        figures[mode] = dict(outcome.figures)
    return passed("; ".join(seen), **figures)


async def _two_turns(client: VllmClient, context: Context, mode: str) -> Outcome:
    prompts, tool = context.prompts["tools"]["history"], context.prompts["tool"]
    log = "".join(filler(context.prompts["needles"], prompts["lines"]))
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": f"{prompts['system']}\n{log}"},
        {"role": "user", "content": tool["question"]},
    ]
    question = request(client, context, "", mode=mode)
    body = {**question.body, "return_token_ids": True, "cache_salt": secrets.token_hex(8)}
    first = await client.chat(messages, question.tokens, **body)
    if problem := calls.fault(first, question.names):
        return failed(problem, PATCHES)
    if not first.tool_calls or first.finish == "length":
        return no_call(first)
    messages += [
        {
            "role": "assistant",
            "content": first.content,
            "tool_calls": first.tool_calls,
            **({"reasoning": first.reasoning} if first.reasoning else {}),
        },
        *({"role": "tool", "tool_call_id": call["id"], "content": prompts["result"]} for call in first.tool_calls),
    ]
    before = await _hits(client)
    second = await client.chat(messages, question.tokens, **body)
    after = await _hits(client)
    earlier = [*first.prompt_ids, *first.ids]
    place = calls.first_difference(earlier, second.prompt_ids) if second.prompt_ids else None
    # constructed weights write calls that no model would, so only what stands before them is theirs to repeat
    if place is not None and context.record.constructed and place >= len(first.prompt_ids):
        place = None
    if place is not None and not await _same_text(client, earlier, second.prompt_ids):
        return failed(
            f"mode {mode}: the second prompt leaves the first turn at token {place} of {len(earlier)}"
            f" ({earlier[place : place + 3]} became {list(second.prompt_ids[place : place + 3])});"
            f" its content was {quoted(first.content)}",
            f"each turn is computed again from there; {PATCHES}",
        )
    if before is None or after is None:
        return passed("the second prompt repeats the first turn; vLLM's counters are unavailable")
    hits = after - before
    share = f"{hits} of {second.prompt_tokens} tokens from the prefix cache"
    figures = {"prompt_tokens": second.prompt_tokens, "cached_tokens": hits}
    if hits < first.prompt_tokens // 2:
        return failed(f"mode {mode}: {share}, after a turn of {len(earlier) or first.prompt_tokens}", CACHE, **figures)
    return passed(share, **figures)


async def _same_text(client: VllmClient, earlier: list[int], ids: Sequence[int]) -> bool:
    """Tell whether the prompt repeats the turn as text: a model may choose other tokens than its tokenizer."""
    try:
        return (await client.detokenize(ids)).startswith(await client.detokenize(earlier))
    except Refused:
        return False


async def _hits(client: VllmClient) -> int | None:
    try:
        return (await client.settled_counters()).prefix_hits
    except Refused:
        return None
