"""Check a long prompt: three facts, far apart in it, are recalled."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from ..client.errors import Refused
from ..client.vllm import VllmClient
from .context import Context
from .outcome import Outcome, failed, passed, quoted, skipped

POSITIONS = ("start", "middle", "end")


async def needles(client: VllmClient, context: Context) -> Outcome:
    """Facts at the start, in the middle and at the end of a prompt that fills `share` of the context are recalled."""
    if context.record.constructed:
        return skipped(context.record.constructed)
    if not context.context_length:
        return skipped("the server does not report its context length")
    prompts = context.prompts["needles"]
    budget = int(context.context_length * context.share) - prompts["max-tokens"]
    lines = await _fitting(client, prompts, budget)
    if lines < 1:
        return skipped(f"{budget} tokens are too few for three facts; set a larger --context-share")
    began = time.monotonic()
    mode = context.prompts["thinking"]["modes"]["chat"]
    salt = secrets.token_hex(8)  # so that the prompt is processed, not found in the prefix cache
    reply = await client.chat(haystack(prompts, lines), prompts["max-tokens"], cache_salt=salt, **mode)
    seconds = time.monotonic() - began
    recalled = [where for where, code in zip(POSITIONS, prompts["codes"], strict=True) if code in reply.content]
    figures = {
        "prompt_tokens": reply.prompt_tokens,
        "share_of_context": round(reply.prompt_tokens / context.context_length, 4),
        "found": recalled,
        "answer_s": round(seconds, 2),
    }
    size = f"{reply.prompt_tokens:,} tokens, {reply.prompt_tokens / context.context_length:.0%} of the context"
    if len(recalled) < len(POSITIONS):
        lost = ", ".join(where for where in POSITIONS if where not in recalled)
        return failed(
            f"not recalled from the {lost} of {size}; the answer is {quoted(reply.content)}",
            "try a smaller --context-share: if only long prompts lose facts, suspect the kernels of sparse attention",
            **figures,
        )
    return passed(f"all three recalled from {size}, {seconds:.1f} s", **figures)


async def _fitting(client: VllmClient, prompts: Mapping[str, Any], tokens: int) -> int:
    """Return how many lines of filler make the whole prompt `tokens` long, as the server's tokenizer counts."""
    sample = "".join(filler(prompts, prompts["sample-lines"]))
    counted = (await client.complete(sample, 1)).prompt_tokens
    if not counted:
        raise Refused("/v1/completions: an answer without usage")
    characters = tokens * len(sample) / counted - len(haystack(prompts, 0))
    return int(characters * prompts["sample-lines"] / len(sample))


def haystack(prompts: Mapping[str, Any], lines: int) -> str:
    """Return the whole prompt with `lines` lines of filler."""
    hay = filler(prompts, lines)
    hidden = [
        prompts["needle"].format(where=where, code=code) + "\n"
        for where, code in zip(prompts["where"], prompts["codes"], strict=True)
    ]
    middle = lines // 2
    log = [hidden[0], *hay[:middle], hidden[1], *hay[middle:], hidden[2]]
    return "".join([prompts["before"], *log, prompts["question"]])


def filler(prompts: Mapping[str, Any], count: int) -> list[str]:
    """Return lines of filler, no two of them equal."""
    words = {name: prompts[name] for name in ("place", "state", "wind")}
    return [
        prompts["line"].format(
            n=n, boats=3 + n * 7 % 41, **{key: choices[n % len(choices)] for key, choices in words.items()}
        )
        + "\n"
        for n in range(1, count + 1)
    ]
