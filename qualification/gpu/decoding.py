"""Requests that decode for as long as something is done meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import httpx

PROMPT, OUTPUT = 64, 4096
"""Tokens of each prompt and of each answer."""
PATIENCE = 60.0
"""Seconds until the first token of each."""


@contextlib.asynccontextmanager
async def requests(url: str, model: str, count: int) -> AsyncIterator[None]:
    """Begin when each of `count` requests has a token, and end them with the block; TimeoutError, HTTPError, ValueError."""
    rng = random.Random(count)
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        began = [asyncio.Event() for _ in range(count)]
        prompts = [[rng.randrange(10, 1000) for _ in range(PROMPT)] for _ in began]
        streams = [asyncio.create_task(_stream(client, url, model, *one)) for one in zip(prompts, began, strict=True)]
        first = asyncio.gather(*(event.wait() for event in began))
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait([first, *streams], return_when=asyncio.FIRST_COMPLETED)
            for stream in streams:
                if stream.done():
                    stream.result()
                    raise ValueError(f"an answer ended before each of {count} requests had a token")
            yield
        finally:
            for task in (first, *streams):
                task.cancel()
            await asyncio.gather(first, *streams, return_exceptions=True)


async def _stream(client: httpx.AsyncClient, url: str, model: str, prompt: list[int], began: asyncio.Event) -> None:
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": OUTPUT,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                began.set()
