"""
Send prompts of every length that a step of vLLM can have: the first of each kind compiles its kernels.

vLLM's own warm-up leaves some out. On 2 x H200 (vLLM 0.32.0, W4A16, 2026-11-22) the first requests after a start waited
up to 15 s for DeepGEMM's batched GEMM of the attention's output projection, whose kernel is chosen by the tokens of the
step in blocks of 64, for its GEMM before the hyper connections, and for Triton's experts of the draft head. Triton has
another kernel where a step's tokens are no multiple of 8: after prompts of multiples of 64 only, the first 200 requests
still compiled two of the draft head's experts (one GPU's share of two, H200, W4A16, 2026-11-29).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..client.endpoint import Endpoint
from ..client.errors import RequestFailed, Unreachable
from ..client.vllm import VllmClient
from ..plan import Plan
from . import event_loop

BLOCK = 64  # tokens; the smallest block of rows of DeepGEMM's kernels on SM 9.0
SMALL = (1, 2, 4, 8, 16, 32)
ANSWER = 2  # tokens: the second one is a step that verifies drafts
FIRST, IDS = 10, 50  # ids that every vocabulary has


@dataclass(frozen=True)
class SweepResult:
    """The prompts answered, their seconds, and the slowest one's seconds and tokens."""

    prompts: int
    seconds: float
    slowest: float
    at: int


def lengths(plan: Plan) -> list[int]:
    """Return prompt lengths in tokens, up to what one step takes and the context leaves room for."""
    context = int(plan.value("max-model-len", 2048)) - ANSWER
    most = min(int(plan.value("max-num-batched-tokens", 8192)), context)
    even = {*SMALL, *range(BLOCK, most, BLOCK), most}
    odd = {(BLOCK << doubled) + 1 for doubled in range(most.bit_length())} | {most - 1}
    return sorted(length for length in even | odd if 0 < length <= most)


def run(endpoint: Endpoint, prompts: Sequence[int]) -> SweepResult:
    """Send one prompt of each length, all with different beginnings; raise Unreachable if one fails."""
    return summary(prompts, event_loop.run(_time_each(VllmClient(endpoint.url, endpoint.key), prompts)))


async def _time_each(client: VllmClient, prompts: Sequence[int]) -> list[float]:
    durations = []
    try:
        for tokens in prompts:
            began = time.monotonic()
            try:
                await client.complete(_prompt(tokens), ANSWER)
            except RequestFailed as error:
                raise Unreachable(f"{client.url}: a prompt of {tokens} tokens was not answered ({error}).") from None
            durations.append(time.monotonic() - began)
    finally:
        await client.close()
    return durations


def summary(prompts: Sequence[int], durations: Sequence[float]) -> SweepResult:
    """Summarize how long each prompt took, in seconds."""
    slowest = max(durations)
    return SweepResult(len(durations), round(sum(durations), 1), round(slowest, 2), prompts[durations.index(slowest)])


def _prompt(tokens: int) -> list[int]:
    """Return so many ids; the first ones encode the length, so that no cached prefix matches."""
    numbers = [tokens // IDS**2, tokens // IDS, *range(tokens, 2 * tokens)]
    return [FIRST + number % IDS for number in numbers[:tokens]]
