"""The answer of `dsv4 fit`: the numbers, whether vLLM starts, and which flag to change to which value. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..kv_offloading import SHM_GIB
from .cache_layout import POSITIONS
from .estimate import BLOCK_TOKENS, MemoryEstimate

HIGHEST_UTILIZATION = 0.97
"""The highest that started on 95.01 GiB; 0.985 and above did not (RTX PRO 6000, third-party logs, 2026)."""
_BATCHES = (16_384, 8_192, 4_096, 2_048, 1_024)


@dataclass(frozen=True)
class Advice:
    """One change that suffices by itself: vLLM's flag, its value, and what it does."""

    flag: str
    value: int | float
    because: str


@dataclass(frozen=True)
class HostHistories:
    """
    What host memory keeps of each replica's KV cache, and what a container with all replicas of a host needs for it.

    `conversations` have the plan's context; `longest` are the tokens of the longest history that can come back.
    """

    gib: float
    blocks: int
    bytes_per_token: float
    bytes_per_prompt: int
    conversations: int
    longest: int
    shm_gib: float
    memory_gib: float


@dataclass(frozen=True)
class Fit:
    """
    GiB per GPU, blocks of 256 tokens; `concurrency` is vLLM's own figure; it and the requests are full-length ones.

    The KV cache may be `uncertainty_gib` larger or smaller: `fits` if one request fits the largest, `certain` if it
    fits the smallest. `promised` are the requests at once of the plan, of each data parallel replica.
    """

    weights_gib: float
    overhead_gib: float
    kv_available_gib: float
    uncertainty_gib: float
    blocks: int
    blocks_per_request: int
    concurrency: float
    steady_state_requests: int
    promised: int
    fits: bool
    certain: bool
    not_counted: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()
    host: HostHistories | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their own names, `host` only where a plan offloads; sizes to 0.01 GiB."""
        plain = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        rounded = {key: round(value, 2) for key, value in plain.items() if isinstance(value, float)}
        return plain | rounded | {"advice": [dataclasses.asdict(advice) for advice in self.advice]}


def fit(memory: MemoryEstimate) -> Fit:
    """Return what a plan takes and holds; `memory.sized` must be true."""
    return Fit(
        weights_gib=memory.weights_gib,
        overhead_gib=memory.overhead_gib,
        kv_available_gib=memory.kv_available_gib,
        uncertainty_gib=memory.uncertainty_gib,
        blocks=memory.blocks,
        blocks_per_request=memory.blocks_per_request,
        concurrency=memory.concurrency,
        steady_state_requests=memory.steady_state_requests,
        promised=memory.requests,
        fits=memory.at_best.admits,
        certain=memory.at_worst.admits,
        not_counted=memory.not_counted,
        advice=tuple(_advice(memory)),
        host=host_histories(memory),
    )


def host_histories(memory: MemoryEstimate) -> HostHistories | None:
    """Return what host memory keeps, if a plan offloads to it; `memory.sized` must be true."""
    cache = memory.host_cache
    if cache is None:
        return None
    more = cache.gib * memory.node_replicas
    return HostHistories(
        gib=cache.gib,
        blocks=cache.blocks,
        bytes_per_token=cache.bytes_per_token,
        bytes_per_prompt=cache.window_blocks * cache.row_bytes,
        conversations=cache.conversations(memory.context),
        longest=cache.longest(),
        shm_gib=SHM_GIB + more,
        memory_gib=more,
    )


def _advice(memory: MemoryEstimate) -> Iterator[Advice]:
    """Yield each single change that lets one request fit, or, where one fits, all that the profile promises."""
    doubtful = memory.admits and not memory.at_worst.admits
    if memory.steady_state_requests >= memory.requests and not doubtful:
        return
    goal_requests = memory.requests if memory.admits else 1

    def enough(**changes: Any) -> bool:
        changed = dataclasses.replace(memory, **changes)
        return changed.steady_state_requests >= goal_requests and (not doubtful or changed.at_worst.admits)

    goal = f"{goal_requests} full-length request{'s' * (goal_requests > 1)}"
    if batch := next((n for n in _BATCHES if n < memory.batched_tokens and enough(batched_tokens=n)), None):
        yield Advice("max-num-batched-tokens", batch, f"{goal} at {memory.context:,} tokens")
    if context := _largest(min(memory.context, POSITIONS) // BLOCK_TOKENS, lambda n: enough(context=n * BLOCK_TOKENS)):
        yield Advice("max-model-len", context * BLOCK_TOKENS, goal)
    if memory.admits and not doubtful:
        most = memory.steady_state_requests
        yield Advice("max-num-seqs", most, f"the most full-length requests that fit; {goal_requests} do not")
    yield from _fewer_sequences(memory, goal, enough)
    if memory.kv_cache_memory_gib is None:
        hundredths = range(int(memory.utilization * 100) + 1, int(HIGHEST_UTILIZATION * 100) + 1)
        if percent := next((n for n in hundredths if enough(utilization=n / 100)), None):
            yield Advice("gpu-memory-utilization", percent / 100, f"{goal}, if nothing else uses the GPU")
    for size in sorted(memory.tensor_parallel_sizes):
        if size > memory.tensor_parallel_size and enough(tensor_parallel_size=size):
            yield Advice("tensor-parallel-size", size, f"{goal}, on {size} GPUs")
            return


def _fewer_sequences(memory: MemoryEstimate, goal: str, enough: Callable[..., bool]) -> Iterator[Advice]:
    """Yield the most sequences whose buffers leave room for one request, where none fits."""
    if not memory.admits and (most := _largest(memory.sequences - 1, lambda n: enough(sequences=n))):
        yield Advice("max-num-seqs", most, goal)


def _largest(most: int, good: Callable[[int], bool]) -> int:
    """Return the largest number from 1 to `most` that is good, when every smaller one is good too; 0 for none."""
    low = 0
    while low < most:
        middle = (low + most + 1) // 2
        low, most = (middle, most) if good(middle) else (low, middle - 1)
    return low


def text(memory: MemoryEstimate, answer: Fit) -> str:
    """Return the answer as text: how the memory is used, both counts of requests, and what to change."""
    share = f"{memory.memory_gib:g} GiB x {memory.utilization:g}"
    by_count = f", ± {answer.uncertainty_gib:.1f} GiB" if answer.uncertainty_gib else ""
    rows = [
        ("GPU memory for vLLM", f"{memory.memory_gib * memory.utilization:6.2f} GiB", share),
        ("weights", f"{answer.weights_gib:6.2f} GiB", _shape(memory)),
        ("overhead", f"{memory.overhead_gib:6.2f} GiB", _overhead(memory)),
        (
            "KV cache",
            f"{answer.kv_available_gib:6.2f} GiB",
            f"{answer.blocks:,} blocks of {BLOCK_TOKENS} tokens{by_count}",
        ),
        ("one request", f"{memory.request_gib:6.2f} GiB", _request(memory, answer)),
    ]
    if host := answer.host:
        rows.append(("host memory", f"{host.gib:6.2f} GiB", histories(memory, host)))
    lines = [f"{name:<20}  {size}  {note}" for name, size, note in rows]
    lines += ["", *_verdict(memory, answer)]
    lines += [_container(host)] if host else []
    lines += [f"Not counted: {'; '.join(answer.not_counted)}."] if answer.not_counted else []
    if answer.advice:
        lines += ["", "Any one of these is enough:"]
        lines += [f"  --{a.flag} {a.value}".ljust(36) + a.because for a in answer.advice]
    return "\n".join(lines)


def shortage(memory: MemoryEstimate) -> str:
    """Return in a few words that a plan holds less than it promises, or may not start; empty if neither."""
    if not memory.sized or not memory.admits:
        return "vLLM may not start: less than one full-length request fits" if memory.sized else ""
    held, promised = memory.steady_state_requests, memory.requests
    if held < promised:
        return f"holds {held} of {promised} full-length requests at once; the others wait"
    return "" if memory.at_worst.admits else "vLLM may not start: there is barely room for one full-length request"


def histories(memory: MemoryEstimate, host: HostHistories) -> str:
    """Return in a few words which histories host memory keeps."""
    if not host.conversations:
        return f"{host.blocks:,} blocks: no history of {memory.context:,} tokens, the longest has {host.longest:,}"
    plural = "s" * (host.conversations > 1)
    return f"{host.blocks:,} blocks: {host.conversations:,} conversation{plural} of {memory.context:,} tokens"


def _container(host: HostHistories) -> str:
    needed = (
        f"The container needs {host.memory_gib:g} GiB more memory than without, and --shm-size={host.shm_gib:g}g."
        if host.memory_gib
        else "That is on the other nodes: this one has no replica (--data-parallel-size-local 0)."
    )
    if not host.longest:
        least = f"a prompt's end alone takes {host.bytes_per_prompt / 1e6:.0f} MB"
        return f"No conversation comes back from host memory: {least}. Raise --kv-offloading-size."
    return (
        f"Conversations come back from host memory: {host.bytes_per_token:,.0f} B a token, and"
        f" {host.bytes_per_prompt / 1e6:.0f} MB for a prompt's end. {needed}"
    )


def _no_room(memory: MemoryEstimate) -> str:
    if memory.weights_gib >= memory.memory_gib * memory.utilization:
        return "Does not fit: the weights leave no room for a KV cache. Choose a smaller --model."
    return "Does not fit: weights and overhead leave no room for a KV cache."


def _shape(memory: MemoryEstimate) -> str:
    sizes = {
        "tensor-parallel-size": memory.tensor_parallel_size,
        "pipeline-parallel-size": memory.pipeline_parallel_size,
        "data-parallel-size": memory.data_parallel_size,
    }
    return ", ".join(f"{name} {size}" for name, size in sizes.items() if size > 1 or name == "tensor-parallel-size")


def _overhead(memory: MemoryEstimate) -> str:
    graphs = f"{len(memory.graphs)} CUDA graph{'s' * (len(memory.graphs) != 1)}" if memory.graphs else "no CUDA graphs"
    return f"{memory.batched_tokens:,} batched tokens, {graphs}, {memory.sequences} sequences, buffers for the context"


def _request(memory: MemoryEstimate, answer: Fit) -> str:
    settled = -(-memory.context // BLOCK_TOKENS)
    return (
        f"{answer.blocks_per_request:,} blocks: {settled:,} for {memory.context:,} tokens,"
        f" {answer.blocks_per_request - settled:,} for {memory.in_flight:,} tokens in flight"
    )


def _verdict(memory: MemoryEstimate, answer: Fit) -> list[str]:
    if not answer.fits:
        if memory.at_best.kv_available_gib <= 0:
            return [_no_room(memory)]
        return ["Does not fit: vLLM will not start, because the KV cache cannot hold one full-length request."]
    if not memory.admits:
        return ["May not fit: vLLM starts only if the KV cache is larger than computed, within the uncertainty."]
    most = answer.steady_state_requests
    start = "Fits." if answer.certain else "May not fit: there is barely room for one request."
    logged = f"{answer.concurrency:.2f}x"
    each = " by each replica" if memory.data_parallel_size > 1 else ""
    return [
        f"{start} vLLM logs a maximum concurrency of {logged}, counting a whole step for each request.",
        (
            f"Requests share steps, so {most} full-length request{'s' * (most > 1)} can run at once (one in prefill);"
            f" the plan promises {memory.requests}{each}."
        ),
    ]
