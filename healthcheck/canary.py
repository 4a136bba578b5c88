"""
Canaries: one token, which shows that the engine answers at all, and the corruption canary.

The corruption canary decodes the same prompts greedily, one after the other and then several at once. Batches of
different sizes round differently, so sound answers may diverge at some token; corrupted ones diverge early, or are
garbled.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice, takewhile

from ..entrypoint.client.answers import Completion
from ..entrypoint.client.errors import Refused
from ..entrypoint.client.vllm import VllmClient
from . import garble
from .garble import INDEPENDENT, LOOP_TOKENS, PROMPTS, SIGNS
from .prompts import Prompt, prompts
from .state import Finding

LONG = 4
"""Prose is decoded so many times longer among concurrent requests: 48 tokens do not show a loop of a whole sentence."""
Answered = tuple[Prompt, Completion]


async def one_token(client: VllmClient) -> None:
    """Generate one token. Raise Unreachable without an answer, Refused for an error."""
    await client.complete(prompts()[0].text, 1)


async def run(
    client: VllmClient,
    concurrency: int,
    tokens: int,
    signs: Iterable[str],
    agreement_floor: float,
) -> Finding:
    """
    Decode every prompt alone and then `concurrency` at once, up to `tokens` tokens each, and judge the answers.

    `signs` are names of garble.NAMES. Raise Unreachable when the server does not answer.
    """
    fixed = prompts()
    together = list(islice(cycle(fixed), max(concurrency, len(fixed))))
    room = asyncio.Semaphore(concurrency)

    async def ask(prompt: Prompt, most: int = tokens) -> Completion:
        more = {"logprobs": True, "to_the_end": True, "skip_special_tokens": False}
        async with room:
            return await client.complete(prompt.text, most, salt=secrets.token_hex(8), **more)

    tasks: list[asyncio.Task[Completion]] = []
    try:
        alone = {prompt: await ask(prompt) for prompt in fixed}
        tasks = [
            asyncio.create_task(ask(prompt, _most(prompt, tokens) if index < len(fixed) else tokens))
            for index, prompt in enumerate(together)
        ]
        concurrent = list(zip(together, await asyncio.gather(*tasks), strict=True))
    except Refused as error:
        return Finding("not measured", f"a test prompt was refused ({error}); see vLLM's log")
    finally:
        for task in tasks:
            task.cancel()
    return judge(alone, concurrent, concurrency, tuple(signs), agreement_floor)


def cost(concurrency: int, tokens: int) -> int:
    """Return the most tokens that `run` generates."""
    fixed = prompts()
    longer = sum(_most(prompt, tokens) - tokens for prompt in fixed)
    return (len(fixed) + max(concurrency, len(fixed))) * tokens + longer


def _most(prompt: Prompt, tokens: int) -> int:
    return tokens * LONG if prompt.kind == "prose" and tokens >= LOOP_TOKENS else tokens


def judge(
    alone: Mapping[Prompt, Completion],
    concurrent: Sequence[Answered],
    concurrency: int,
    signs: Sequence[str],
    agreement_floor: float,
) -> Finding:
    """
    Judge the answers: those decoded alone, and those decoded `concurrency` at once.

    A sign in the answers to one prompt only is a warning.
    """
    agreed = sum(_agreed(alone[prompt], answer) for prompt, answer in concurrent) / len(concurrent)
    detail = (
        f"{agreed:.0%} of tokens agree between answers alone and {concurrency} at once (floor {agreement_floor:.0%})"
    )
    found = [_found(name, list(alone.items()), concurrent) for name in signs]
    problems = [text for count, text in found if count >= PROMPTS]
    if agreed < agreement_floor:
        problems.append("concurrent requests change the answers: suspect the kernels for batches on this GPU")
    if problems:
        return Finding(detail, f"{detail}; {'; '.join(problems)}")
    if warnings := [f"{text}, for one prompt only" for count, text in found if count]:
        return Finding(detail, warning="; ".join(warnings))
    return Finding(f"{detail}; no sign of garbling ({', '.join(signs) or 'none checked'})")


def _agreed(alone: Completion, concurrent: Completion) -> float:
    """Return how much two answers agree; one that was allowed to be longer is compared as far as the other goes."""
    cut = len(alone.tokens) if alone.finish == "length" else len(concurrent.tokens)
    return agreement(alone, replace(concurrent, tokens=concurrent.tokens[:cut]))


def agreement(first: Completion, second: Completion) -> float:
    """Return the share of equal tokens from the start of two answers, of the longer one's tokens: 0 to 1."""
    longer = max(len(first.tokens), len(second.tokens))
    if not longer:
        return 1.0
    pairs = zip(first.tokens, second.tokens, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) / longer


def _found(name: str, alone: Sequence[Answered], concurrent: Sequence[Answered]) -> tuple[int, str]:
    """Return how many prompts show a sign, and what it is and where."""
    everywhere = [*alone, *concurrent]
    if name == INDEPENDENT:
        same = garble.independent(everywhere)
        return len(same), f"{name}: {len(same)} prompts have answers that begin alike"
    sign = SIGNS[name]
    reasons = [
        [(prompt, why) for prompt, answer in part if (why := sign(prompt, answer))] for part in (alone, concurrent)
    ]
    garbled = [*reasons[0], *reasons[1]]
    if not garbled:
        return 0, ""
    where = "" if reasons[0] else ", none of them decoded alone"
    prompt, why = garbled[0]
    text = f"{name} in {len(garbled)} of {len(everywhere)} answers{where} ({prompt.kind}: {why})"
    return len({prompt for prompt, _ in garbled}), text
