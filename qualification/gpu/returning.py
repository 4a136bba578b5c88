"""
The first token of conversations that come back: read, restored from host memory, and found in the GPU's prefix cache.

All conversations are read one after the other, then each comes back in the same order with a new turn, and the last one
comes back once more at once. Where the GPU's cache is too small for all of them, it has dropped each by the time that it
comes back, so the second turn is restored from host memory (`--kv-offloading-size`) or read again. Counters of vLLM say
which it was.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
from typing import Any

import httpx

from qualification.gpu.beside import answered

TURN, OUTPUT = 256, 64
"""Tokens of a new turn, and of an answer."""
PAUSE = 0.3
"""Seconds after an answer, in which its last blocks are stored."""
COUNTERS = {
    "gpu": "vllm:prefix_cache_hits_total",
    "host": "vllm:external_prefix_cache_hits_total",
    "stored": "vllm:kv_offload_store_bytes_total",
    "store_seconds": "vllm:kv_offload_store_time_total",
    "restored": "vllm:kv_offload_load_bytes_total",
    "restore_seconds": "vllm:kv_offload_load_time_total",
}
"""Prompt tokens found in the GPU's cache and in host memory; bytes copied to and from host memory, and seconds of that."""


def read(metrics: str) -> dict[str, float]:
    """Return the counters by our names, 0 for one that is not there."""
    found = {}
    for ours, name in COUNTERS.items():
        values = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)", metrics, re.MULTILINE)
        found[ours] = sum(map(float, values))
    return found


async def measure(url: str, model: str, tokens: int, count: int, vocab: int) -> dict[str, Any]:
    """
    Return the turns of `count` conversations of so many tokens, in the order in which they were sent.

    A turn has its kind (`read`, `back`, `again`), seconds to the first token, milliseconds for each token after it, and by
    how much each counter rose.
    """
    rng = random.Random(tokens)  # new tokens each time, which no prefix cache holds

    def made(length: int) -> list[int]:
        return [rng.randrange(10, vocab) for _ in range(length)]

    histories = [made(tokens) for _ in range(count)]
    kinds = [(kind, number) for kind in ("read", "back") for number in range(count)] + [("again", count - 1)]
    turns: list[dict[str, Any]] = []
    async with httpx.AsyncClient(timeout=600, trust_env=False) as client:

        async def counted() -> dict[str, float]:
            return read((await client.get(f"{url}/metrics")).raise_for_status().text)

        for kind, number in kinds:
            prompt = histories[number] + (made(TURN) if kind != "read" else [])
            before = await counted()
            seconds, rest = await answered(client, url, model, prompt, OUTPUT)
            await asyncio.sleep(PAUSE)
            after = await counted()
            turns.append(
                {"turn": kind, "seconds": round(seconds, 4), "ms_a_token": round(1000 * rest / (OUTPUT - 1), 2)}
                | {name: round(after[name] - before[name], 6) for name in after}
            )
    return {"tokens": tokens, "conversations": count, "p50": medians(turns), "turns": turns}


def medians(turns: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median seconds to the first token by where the history came from: `read`, `host` or `gpu`."""
    found: dict[str, list[float]] = {}
    for turn in turns:
        source = next((name for name in ("gpu", "host") if turn[name]), "read")
        found.setdefault(source, []).append(turn["seconds"])
    return {source: round(statistics.median(seconds), 4) for source, seconds in found.items()}
