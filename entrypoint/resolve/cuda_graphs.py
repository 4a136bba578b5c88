"""
The sizes of steps that vLLM captures as CUDA graphs: those of decoding, and those of prompts.

vLLM 0.32.0 captures up to twice the tokens that decode together, 512 at most (config/vllm.py, `_set_cudagraph_sizes`):
8 for two requests with one draft token each. A longer step runs kernel by kernel, each launched by the host, and
requests that decode in it wait. If a hardware's file sets `prompt-graphs`, these sizes are captured too.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..plan import Setting, draft_tokens, plain
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
    step = draft_tokens(plain(flags)) + 1
    origin = f"{selection.hardware.file} prompt-graphs, and {requests.value} requests of {step} tokens per step"
    batched = flags.get("max-num-batched-tokens")
    longest = batched.value if batched else prompts[-1]
    captured = [size for size in sizes(int(requests.value), step, prompts) if size <= longest]
    return {SIZES: Setting(captured, origin)}


def sizes(requests: int, step: int, prompts: list[int]) -> list[int]:
    """
    Return the sizes in tokens, ascending: those of `requests` decoding `step` tokens each, and those of prompts.

    Decode steps are those that vLLM would capture itself: 1, 2, 4 requests and multiples of 8, each a multiple of
    `step`, which a graph of a whole decode step has to be.
    """
    longest = max(MOST, prompts[0])
    counts = [count for count in (1, 2, 4, *range(8, longest // step + 1, 8)) if count < requests]
    decode = {count * step for count in (*counts, requests)}
    mixed = {1, 2, 4, *range(8, min(2 * step * requests, longest) + 1, 8)}
    return sorted(
        {size for size in decode | mixed if size < prompts[0]} | {n for n in decode if n <= MOST} | {*prompts}
    )
