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
from itertools import cycle, islice, takewhile

from ..entrypoint.client.answers import Completion
from ..entrypoint.client.errors import Refused
from ..entrypoint.client.vllm import VllmClient
from .garble import SIGNS
from .prompts import Prompt, prompts
from .state import Finding

AGREEMENT_FLOOR = 0.5  # unmeasured on real weights
Answered = tuple[Prompt, Completion]


async def one_token(client: VllmClient) -> None:
    """Generate one token. Raise Unreachable without an answer, Refused for an error."""
    await client.complete(prompts()[0].text, 1)


async def run(
    client: VllmClient,
    concurrency: int,
    tokens: int,
    signs: Iterable[str] = tuple(SIGNS),
    agreement_floor: float = AGREEMENT_FLOOR,
) -> Finding:
    """
    Decode every prompt alone and then `concurrency` at once, up to `tokens` tokens each, and judge the answers.

    `signs` are names of garble.SIGNS. Raise Unreachable when the server does not answer.
    """
    fixed = prompts()
    together = list(islice(cycle(fixed), max(concurrency, len(fixed))))
    room = asyncio.Semaphore(concurrency)

    async def ask(prompt: Prompt) -> Completion:
        async with room:
            return await client.complete(prompt.text, tokens, logprobs=True, to_the_end=True, salt=secrets.token_hex(8))

    tasks: list[asyncio.Task[Completion]] = []
    try:
        alone = {prompt: await ask(prompt) for prompt in fixed}
        tasks = [asyncio.create_task(ask(prompt)) for prompt in together]
        concurrent = list(zip(together, await asyncio.gather(*tasks), strict=True))
    except Refused as error:
        return Finding("not measured", f"a test prompt was refused ({error}); see vLLM's log")
    finally:
        for task in tasks:
            task.cancel()
    return judge(alone, concurrent, concurrency, tuple(signs), agreement_floor)


def judge(
    alone: Mapping[Prompt, Completion],
    concurrent: Sequence[Answered],
    concurrency: int,
    signs: Sequence[str],
    agreement_floor: float,
) -> Finding:
    """Judge the answers: those decoded alone, and those decoded `concurrency` at once."""
    agreed = sum(agreement(alone[prompt], answer) for prompt, answer in concurrent) / len(concurrent)
    detail = (
        f"{agreed:.0%} of tokens agree between answers alone and {concurrency} at once (floor {agreement_floor:.0%})"
    )
    problems = [problem for name in signs if (problem := _garbled(name, list(alone.items()), concurrent))]
    if agreed < agreement_floor:
        problems.append("concurrent requests change the answers: suspect the kernels for batches on this GPU")
    if problems:
        return Finding(detail, f"{detail}; {'; '.join(problems)}")
    return Finding(f"{detail}; no sign of garbling ({', '.join(signs) or 'none checked'})")


def agreement(first: Completion, second: Completion) -> float:
    """Return the share of equal tokens from the start of two answers, of the longer one's tokens: 0 to 1."""
    longer = max(len(first.tokens), len(second.tokens))
    if not longer:
        return 1.0
    pairs = zip(first.tokens, second.tokens, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) / longer


def _garbled(name: str, alone: Sequence[Answered], concurrent: Sequence[Answered]) -> str:
    """Return what a sign finds and where, or nothing."""
    sign = SIGNS[name]
    reasons = [
        [(prompt, why) for prompt, answer in part if (why := sign.find(prompt, answer))] for part in (alone, concurrent)
    ]
    garbled = [*reasons[0], *reasons[1]]
    if len({prompt for prompt, _ in garbled}) < sign.prompts:
        return ""
    where = "" if reasons[0] else ", none of them decoded alone"
    prompt, why = garbled[0]
    return f"{name} in {len(garbled)} of {len(alone) + len(concurrent)} answers{where} ({prompt.kind}: {why})"
