"""
Requests before a measurement, which are not counted: what they compile or capture is not measured.

Their prompts are none of the measured ones, which a prefix cache would then hold. (vLLM's load generator would send the
first measured prompt, `--num-warmups`.)
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
from collections.abc import Coroutine
from typing import Any

from ..client import http
from ..client.endpoint import Endpoint
from ..client.vllm import COMPLETIONS
from .options import LoadShape
from .sweep import FIRST, IDS

MOST = 16384
"""Tokens of a prompt; a longer one is read in steps of the same kinds."""
SECONDS = 3600.0
"""For an answer: the first ones may wait for kernels."""
CLOSING = 5.0
"""Seconds to close what still runs after a signal."""


def send(shape: LoadShape, endpoint: Endpoint, model: str) -> None:
    """Send `shape.warm_up` requests of that shape at once, and wait for the answers; raise Unreachable or Refused."""
    if shape.warm_up:
        _run(_all(shape, endpoint, model))


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run it in a thread, so that a signal is raised here: an event loop may log what a handler raises, and go on."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(work, loop).result()
    finally:
        concurrent.futures.wait([asyncio.run_coroutine_threadsafe(_end(), loop)], CLOSING)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSING)


async def _end() -> None:
    """Cancel what still runs, and wait until its connections are closed."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


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
