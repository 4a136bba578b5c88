"""
The sizes of steps that vLLM captures as CUDA graphs: those of decoding, and those of prompts.

vLLM 0.32.0 captures up to twice the tokens that decode together, 512 at most (config/vllm.py, `_set_cudagraph_sizes`):
8 for two requests with one draft token each. A longer step runs kernel by kernel, each launched by the host, and
requests that decode in it wait. If a hardware's file sets `prompt-graphs`, these sizes are captured too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..draft_schedule import tiers
from ..plan import Setting, plain
from .select import Selection

SIZES = "cudagraph-capture-sizes"
MOST = 512
"""Tokens; vLLM's own ceiling for decode steps on all but SM 10.x."""


def named(selection: Selection, flags: Mapping[str, Setting]) -> dict[str, Setting]:
    """
    Return the flag of the sizes to capture, none above the tokens of a step.

    Empty if the hardware sets none, or if another layer sets graphs.
    """
    prompts, requests = selection.hardware.get("prompt_graphs"), flags.get("max-num-seqs")
    if not prompts or requests is None or any("cudagraph" in name or name == "enforce-eager" for name in flags):
        return {}
    decoding = {tokens + 1: count for tokens, count in tiers(plain(flags), int(requests.value)).items()}
    steps = ", ".join(
        f"{count} requests of {step} token{'s' * (step > 1)}" for step, count in sorted(decoding.items(), reverse=True)
    )
    origin = f"{selection.hardware.file} prompt-graphs, and {steps} per step"
    batched = flags.get("max-num-batched-tokens")
    longest = batched.value if batched else prompts[-1]
    captured = [size for size in sizes(decoding, prompts) if size <= longest]
    return {SIZES: Setting(captured, origin)}


def sizes(decoding: Mapping[int, int], prompts: list[int]) -> list[int]:
    """
    Return the sizes in tokens, ascending: those of decode steps, and those of prompts.

    `decoding` has the most requests of a step for each number of tokens that a request has in it; with k by load there
    are several. Decode steps are those that vLLM would capture itself: 1, 2, 4 requests and multiples of 8, each a
    multiple of these tokens, which a graph of a whole decode step has to be.
    """
    longest = max(MOST, prompts[0])
    decode = {count * step for step, requests in decoding.items() for count in _counts(requests, longest // step)}
    most = max(step * requests for step, requests in decoding.items())
    mixed = {1, 2, 4, *range(8, min(2 * most, longest) + 1, 8)}
    return sorted(
        {size for size in decode | mixed if size < prompts[0]} | {n for n in decode if n <= MOST} | {*prompts}
    )


def _counts(requests: int, longest: int) -> list[int]:
    return [*(count for count in (1, 2, 4, *range(8, longest + 1, 8)) if count < requests), requests]


def narrower(captured: list[int], values: Mapping[str, Any], requests: int) -> list[int]:
    """
    Return the tokens of decode graphs that k by load adds: vLLM rounds each size to whole steps of each length.

    Those of the longest step are counted with the sizes themselves (v1/worker/gpu/cudagraph_utils.py).
    """
    lengths = sorted(tokens + 1 for tokens in tiers(values, requests))
    limit = min(requests * lengths[-1], max(captured, default=0))
    added = {(-(-size // length) * length, length) for size in captured for length in lengths[:-1]}
    return sorted(tokens for tokens, length in added if tokens <= limit and tokens // length <= requests)
