"""
The sizes of steps that vLLM captures as CUDA graphs: those of decoding, and those of prompts.

vLLM 0.32.0 captures up to twice the tokens that decode together, 512 at most (config/vllm.py, `_set_cudagraph_sizes`):
8 for two requests with one draft token each. A longer step runs kernel by kernel, each launched by the host, and
requests that decode in it wait. `prompt_graphs` adds sizes of prompts, where a hardware's file names some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..draft_schedule import tiers
from ..plan import draft_tokens

SIZES = "cudagraph-capture-sizes"
_SIZES_HERE_TOO, _MODE = "compilation-config.cudagraph_capture_sizes", "compilation-config.cudagraph_mode"
_LARGEST = ("max-cudagraph-capture-size", "compilation-config.max_cudagraph_capture_size")
_LEVEL = ("optimization-level", "O")
MOST, MOST_SM10 = 512, 1024
"""Tokens; vLLM's own ceiling for decode steps, on all but SM 10.x and there."""


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


def captured(values: Mapping[str, Any], requests: int, *, sm10: bool) -> tuple[int, ...]:
    """
    Return the tokens of every CUDA graph that vLLM captures for a plan: those that it sets, else vLLM's own list.

    Empty where the plan turns graphs off. The list is that of `_set_cudagraph_sizes` (vLLM 0.32.0, config/vllm.py).
    """
    off = values.get("enforce-eager") is True or str(values.get(_MODE, "")).upper() == "NONE"
    if off or any(str(values.get(name, "")) == "0" for name in _LEVEL):
        return ()
    batched = int(values.get("max-num-batched-tokens") or MOST_SM10)
    if chosen := values.get(SIZES) or values.get(_SIZES_HERE_TOO):
        return (*(size for size in chosen if size <= batched), *narrower(chosen, values, requests))
    step, most = 1 + draft_tokens(values), MOST_SM10 if sm10 else MOST
    largest = next((int(values[name]) for name in _LARGEST if values.get(name)), None)
    longest = min(largest or min(requests * step * 2, most), batched)
    grid = {1, 2, 4, *range(8, 256, 8), *range(256, longest + 1, 16)}
    if largest is None:
        ends = (n * step for n in (1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16), requests) if n <= requests)
        grid |= set(ends)
    return tuple(sorted(size for size in grid if size <= longest))
