"""Check the weights and the KV cache against the GPU's memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..problem import Problem, check
from .advice import Advice, fit
from .estimate import MemoryEstimate

_CARD = "https://huggingface.co/canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP"
FEWER = "raise --tp, or choose a smaller --model"
"""The remedy where only more GPUs or a smaller model helps; `resolve/remedies.py` names them."""
_ADMISSION = "https://github.com/vllm-project/vllm/issues/51041"


@check(
    symptom="torch.OutOfMemoryError while weights load, or: No available memory for the cache blocks",
    link=_CARD,
    remedy=FEWER,
    failures=(53,),
    tried="constructed",
)
def weights(memory: MemoryEstimate) -> Problem | None:
    """The weights leave room for a KV cache."""
    if memory.at_best.kv_available_gib > 0:
        return None
    room = memory.memory_gib * memory.utilization - memory.overhead_gib
    return Problem(
        f"the weights take {memory.weights_gib:.1f} GiB per GPU at tensor-parallel-size {memory.tensor_parallel_size}",
        f"at most {room:.1f} GiB ({memory.memory_gib:g} x gpu-memory-utilization {memory.utilization:g}, minus"
        f" {memory.overhead_gib:.1f} GiB of overhead)",
    )


@check(
    symptom="To serve at least one request with the model's max seq len, … GiB KV cache is needed",
    link=_ADMISSION,
    remedy=("lower {flag} to {value}", FEWER, "if vLLM does not start, lower max-num-batched-tokens"),
    failures=(43,),
    tried="constructed",
)
def kv_cache(memory: MemoryEstimate) -> Problem | None:
    """One full-length request fits the KV cache; otherwise vLLM stops after loading everything."""
    if not memory.sized or memory.at_best.kv_available_gib <= 0 or memory.at_worst.admits:
        return None
    refused, change = not memory.at_best.admits, _change(fit(memory).advice)
    uncertain = "" if refused else f" ± {memory.uncertainty_gib:.1f}"
    remain = f"{max(0.0, memory.kv_available_gib):.1f}{uncertain} GiB"
    return Problem(
        f"{remain} remain for the KV cache after {memory.weights_gib:.1f} GiB of weights",
        f"{memory.request_gib:.1f} GiB for one request of {memory.context} tokens at max-num-batched-tokens"
        f" {memory.batched_tokens}",
        (change or FEWER) if refused else f"if vLLM does not start, {change or 'lower max-num-batched-tokens'}",
        fatal=refused,
    )


@check(
    symptom="Maximum concurrency is under max-num-seqs, and long requests wait for one another",
    link=_ADMISSION,
    remedy="if all requests are that long, lower {flag} to {value}",
    tried="constructed",
)
def full_requests(memory: MemoryEstimate) -> Problem | None:
    """The KV cache holds as many full-length requests at once as the profile promises."""
    if not memory.sized or not memory.admits or memory.steady_state_requests >= memory.requests:
        return None
    fitting = memory.steady_state_requests
    return Problem(
        f"the KV cache holds {fitting} request{'s' * (fitting > 1)} of {memory.context} tokens at once,"
        f" but the plan promises {memory.requests}",
        "nothing if requests are shorter; otherwise the rest wait in the queue",
        f"if all requests are that long, {_change(fit(memory).advice)}",
        fatal=False,
    )


CHECKS = (weights, kv_cache, full_requests)


def problems(memory: MemoryEstimate, skip: Collection[str] = ()) -> Iterator[tuple[str, Problem]]:
    """Yield the name and the problem of every check that finds one."""
    for check_ in CHECKS:
        if check_.name not in skip and (problem := check_(memory)):
            yield check_.name, problem


def _change(advice: tuple[Advice, ...]) -> str:
    """Return the changes that are enough, the least costly first, as `lower … to …`."""
    changes = (f"{'raise' if a.flag in _RAISED else 'lower'} {a.flag} to {a.value}" for a in advice[:2])
    return ", or ".join(changes)


_RAISED = frozenset({"gpu-memory-utilization", "tensor-parallel-size"})
