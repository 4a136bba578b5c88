"""Weights and KV cache against the GPU's memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import cast

from ..problem import Check, Problem, Wild, check, name_of
from .advice import Advice, fit
from .estimate import MemoryEstimate

_CARD = "https://huggingface.co/canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP"
_ADMISSION = "https://github.com/vllm-project/vllm/issues/51041"


@check(Wild("torch.OutOfMemoryError while weights load, or: No available memory for the cache blocks", _CARD, (53,)))
def weights(memory: MemoryEstimate) -> Problem | None:
    """The weights leave something for the KV cache."""
    if memory.kv_available_gib > 0:
        return None
    room = memory.memory_gib * memory.utilization - memory.overhead_gib
    return Problem(
        f"the weights take {memory.weights_gib:.1f} GiB a GPU at tensor-parallel-size {memory.tensor_parallel_size}",
        f"at most {room:.1f} GiB ({memory.memory_gib:g} x gpu-memory-utilization {memory.utilization:g}, less"
        f" {memory.overhead_gib:.1f} of overhead)",
        "raise --tp, or choose a smaller --model",
    )


@check(Wild("To serve at least one request with the model's max seq len, … GiB KV cache is needed", _ADMISSION, (43,)))
def kv_cache(memory: MemoryEstimate) -> Problem | None:
    """One request of full length fits the KV cache, or vLLM stops after it has loaded everything."""
    if not memory.sized or memory.kv_available_gib <= 0 or memory.admits:
        return None
    return Problem(
        f"{memory.kv_available_gib:.1f} GiB remain for the KV cache after {memory.weights_gib:.1f} GiB of weights",
        f"{memory.request_gib:.1f} GiB for one request of {memory.context} tokens at max-num-batched-tokens"
        f" {memory.batched_tokens}",
        _change(fit(memory).advice) or "raise --tp, or choose a smaller --model",
    )


@check(Wild("Maximum concurrency is under max-num-seqs, and long requests wait for one another", _ADMISSION))
def full_requests(memory: MemoryEstimate) -> Problem | None:
    """As many requests of full length as the profile promises run at once."""
    if not memory.sized or not memory.admits or memory.steady_state_requests >= memory.requests:
        return None
    return Problem(
        f"{memory.steady_state_requests} requests of {memory.context} tokens fit the KV cache at once,"
        f" and {memory.requests} are promised",
        "none, where requests are shorter: the others wait their turn",
        f"where they are not, {_change(fit(memory).advice)}",
        fatal=False,
    )


CHECKS = cast("tuple[Check, ...]", (weights, kv_cache, full_requests))


def problems(memory: MemoryEstimate, skip: Collection[str] = ()) -> Iterator[tuple[str, Problem]]:
    """Yield the name and the problem of every check that finds one."""
    for found in CHECKS:
        if name_of(found) not in skip and (problem := found(memory)):
            yield name_of(found), problem


def _change(advice: tuple[Advice, ...]) -> str:
    """Return the changes that are enough, the least costly first, as `lower … to …`."""
    words = (f"{'raise' if a.flag in _RAISED else 'lower'} {a.flag} to {a.value}" for a in advice[:2])
    return ", or ".join(words)


_RAISED = frozenset({"gpu-memory-utilization", "tensor-parallel-size"})
