"""
Prompts of every length that a step of vLLM can have, one after the other: the first of a kind compiles its kernels.

vLLM's own warm-up leaves some out. On 2 x H200 (vLLM 0.32.0, W4A16, 2026-11-22) the first requests after a start waited
up to 15 s for DeepGEMM's batched GEMM of the attention's output projection, whose kernel is chosen by the tokens of the
step in blocks of 64, for its GEMM before the hyper connections, and for Triton's experts of the draft head.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import httpx

from dsv4_serve.entrypoint.endpoint import Endpoint, NoAnswer
from dsv4_serve.entrypoint.plan import Plan

BLOCK = 64  # tokens; the smallest block of rows of DeepGEMM's kernels on SM 9.0
SMALL = (1, 2, 4, 8, 16, 32)
ANSWER = 2  # tokens: the second one is a step that verifies drafts
PATIENCE = 600.0  # seconds for one answer
FIRST, IDS = 10, 50  # ids that every vocabulary has


@dataclass(frozen=True)
class Swept:
    """How many prompts were answered in how many seconds, and the slowest of them with its tokens."""

    prompts: int
    seconds: float
    slowest: float
    at: int


def lengths(plan: Plan) -> list[int]:
    """Return prompt lengths in tokens, up to what one step takes and the context leaves room for."""
    context = int(plan.value("max-model-len", 2048)) - ANSWER
    most = min(int(plan.value("max-num-batched-tokens", 8192)), context)
    return [*(small for small in SMALL if small < most), *range(BLOCK, most, BLOCK), most]


def run(where: Endpoint, prompts: Sequence[int]) -> Swept:
    """Ask for each length once, no two prompts with a beginning in common; raise NoAnswer where one is not answered."""
    model, took = where.models()[0], []
    headers = {"Authorization": f"Bearer {where.key}"} if where.key else {}
    with httpx.Client(base_url=where.url, headers=headers, timeout=PATIENCE, trust_env=False) as client:
        for tokens in prompts:
            began = time.monotonic()
            body = {"model": model, "prompt": _prompt(tokens), "max_tokens": ANSWER, "temperature": 0}
            try:
                client.post("/v1/completions", json=body).raise_for_status()
            except httpx.HTTPError as error:
                raise NoAnswer(f"{where.url}: a prompt of {tokens} tokens was not answered ({error}).") from None
            took.append(time.monotonic() - began)
    return summary(prompts, took)


def summary(prompts: Sequence[int], took: Iterable[float]) -> Swept:
    """Return what so many prompts took, each in seconds."""
    each = list(took)
    slowest = max(each)
    return Swept(len(each), round(sum(each), 1), round(slowest, 2), prompts[each.index(slowest)])


def _prompt(tokens: int) -> list[int]:
    """Return so many ids; the first ones write the number, so that no cached prefix answers."""
    numbers = [tokens // IDS**2, tokens // IDS, *range(tokens, 2 * tokens)]
    return [FIRST + number % IDS for number in numbers[:tokens]]
