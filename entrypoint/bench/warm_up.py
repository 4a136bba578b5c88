"""
Requests before a measurement, which are not counted: what they compile or capture is not measured.

Their prompts are none of the measured ones, which a prefix cache would then hold. (vLLM's load generator would send the
first measured prompt, `--num-warmups`.)
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from ..client import http
from ..client.endpoint import Endpoint
from ..client.vllm import COMPLETIONS
from . import event_loop
from .options import LoadShape
from .sweep import FIRST, IDS

MOST = 16384
"""Tokens of a prompt; a longer one is read in steps of the same kinds."""
SECONDS = 3600.0
"""For an answer: the first ones may wait for kernels."""


def send(shape: LoadShape, endpoint: Endpoint, model: str) -> None:
    """Send `shape.warm_up` requests of that shape at once, and wait for the answers; raise Unreachable or Refused."""
    if shape.warm_up:
        event_loop.run(_all(shape, endpoint, model))


async def _all(shape: LoadShape, endpoint: Endpoint, model: str) -> None:
    import httpx

    settings: dict[str, Any] = http.settings(endpoint.key, endpoint.url) | {"timeout": SECONDS}
    bodies = [_body(shape, model, prompt) for prompt in prompts(shape)]
    try:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), **settings) as client:
            answers = await asyncio.gather(*(client.post(f"{endpoint.url}{COMPLETIONS}", json=body) for body in bodies))
    except httpx.HTTPError as error:
        raise http.unreachable(endpoint.url, error) from None
    for answer in answers:
        http.accepted(answer, COMPLETIONS)


def _body(shape: LoadShape, model: str, prompt: list[int]) -> dict[str, object]:
    return {"model": model, "prompt": prompt, "max_tokens": shape.output, "temperature": 0, "ignore_eos": True}


def prompts(shape: LoadShape) -> list[list[int]]:
    """Return the prompts, as token ids that every vocabulary has."""
    ids, length = range(FIRST, FIRST + IDS), min(shape.history + shape.input, MOST)
    seeded = [random.Random(f"{shape.seed} {number}") for number in range(shape.warm_up)]  # noqa: S311
    return [one.choices(ids, k=length) for one in seeded]
