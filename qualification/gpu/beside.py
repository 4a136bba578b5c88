"""The first token of short prompts that are sent one after the other while one long prompt is read."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from typing import Any

import httpx

SHORT, OUTPUT, HEAD_START, PAUSE = 64, 2, 0.5, 0.2
"""Tokens of a short prompt, tokens of an answer, seconds before the first short one, seconds between two."""


async def answered(
    client: httpx.AsyncClient, url: str, model: str, tokens: list[int], output: int = OUTPUT
) -> tuple[float, float]:
    """
    Seconds until the first token of an answer of `output` tokens, and from there to its last one.

    Raise HTTPError for an error, and ValueError for an end without a token.
    """
    body = {
        "model": model,
        "prompt": tokens,
        "max_tokens": output,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    began, times = time.monotonic(), list[float]()
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                if '"error"' in line:
                    raise ValueError(line[:200])
                times.append(time.monotonic())
    if not times:
        raise ValueError("an answer without a token")
    return times[0] - began, times[-1] - times[0]


async def measure(url: str, model: str, tokens: int, vocab: int, seed: int = 0) -> dict[str, Any]:
    """Return the seconds of short prompts alone, of a prompt of `tokens` alone, and of both at once."""
    rng = random.Random(seed)  # new tokens each time, which no prefix cache holds
    async with httpx.AsyncClient(timeout=600, trust_env=False) as client:

        async def one(length: int) -> float:
            prompt = [rng.randrange(10, vocab) for _ in range(length)]
            return round((await answered(client, url, model, prompt))[0], 3)

        alone = [await one(SHORT) for _ in range(3)]
        long_alone = await one(tokens)
        long = asyncio.create_task(one(tokens))
        await asyncio.sleep(HEAD_START)
        concurrent: list[float] = []
        while not long.done():
            concurrent.append(await one(SHORT))
            await asyncio.sleep(PAUSE)
        return {
            "tokens": tokens,
            "short_alone": alone,
            "long_alone": long_alone,
            "short_beside": concurrent,
            "short_beside_p50": round(statistics.median(concurrent), 3) if concurrent else None,
            "long_beside": await long,
        }
