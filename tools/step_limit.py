"""
What one decoding step has to read and to compute, and how long that takes at least.

    python -m tools.step_limit w4a16 --tensor-parallel-size 2 --draft-tokens 1 --bandwidth 4.0 --batch 1 4 16
    python -m tools.step_limit w4a16 --bandwidth 4.36 --bf16

Counted from the published sizes: every weight that a step touches is read once, a routed expert when at least one of
the step's tokens is sent to it (tokens are sent evenly). The KV cache is left out: at 512 tokens it is below 1 %.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from dsv4_serve.demo.v4_weights import HC, HEAD_DIM, Dims
from dsv4_serve.entrypoint.bench.without_weights import SIZES

INT4 = 0.5 + 2 / 128  # bytes a weight: four bits, and a BF16 scale for 128 weights
NVFP4 = 0.5 + 1 / 16  # four bits, and an FP8 scale for 16 weights
MXFP4 = 0.5 + 1 / 32  # four bits, and a scale of a byte for 32 weights
FP8, BF16, F32 = 1.0, 2.0, 4.0


@dataclass(frozen=True)
class Dense:
    """Bytes a weight of a layer's linear modules; vLLM computes compressors and routers in BF16, however stored."""

    attention: float = FP8
    shared: float = BF16
    indexer_q: float = BF16
    projections: float = BF16


@dataclass(frozen=True)
class Storage:
    """Bytes a weight, by what it belongs to."""

    experts: float
    target: Dense = Dense()
    draft: Dense = Dense(attention=BF16)
    draft_experts: float = BF16


_NATIVE = Dense(FP8, FP8, FP8, FP8)
MODELS = {
    "w4a16": ("deepseek-v4-flash", Storage(INT4)),
    "acti": ("deepseek-v4-flash", Storage(INT4, Dense(indexer_q=FP8), Dense(), INT4)),
    "nvfp4": ("deepseek-v4-flash", Storage(NVFP4)),
    "flash": ("deepseek-v4-flash", Storage(MXFP4, _NATIVE, _NATIVE, MXFP4)),
}


@dataclass(frozen=True)
class Step:
    """One step of one GPU: bytes read and floating-point operations, experts of a layer that are read."""

    bytes: float
    operations: float
    experts: float


Weights = dict[str, tuple[float, float]]
"""How many weights, and bytes of each, by the name of what they belong to."""


def dense(d: Dims, ratio: int, tp: int, stored: Dense) -> Weights:
    """Return one layer without its routed experts, on one GPU."""
    split = d.heads * HEAD_DIM * d.q_lora + d.heads * HEAD_DIM * d.o_lora + d.hidden * d.o_groups * d.o_lora
    whole = (d.q_lora + HEAD_DIM) * d.hidden
    compressor = 2 * HEAD_DIM * (2 if ratio == 4 else 1) * d.hidden if ratio else 0
    indexer = d.index_heads * 128 * d.q_lora if ratio == 4 else 0
    if ratio == 4:
        compressor += d.index_heads * d.hidden + 2 * 2 * 128 * d.hidden
    return {
        "attention": (split / tp + whole, stored.attention),
        "shared experts": (3 * d.inter * d.hidden / tp, stored.shared),
        "compressors and the indexer's weights": (compressor, BF16),
        "queries of the indexer": (indexer, stored.indexer_q),
        "routers": (d.experts * d.hidden, BF16),
        "hyper connections": (2 * (2 + HC) * HC * HC * d.hidden, F32),
    }


def read(weights: Weights) -> float:
    """Return the bytes of all of them."""
    return sum(count * size for count, size in weights.values())


def numbers(weights: Weights) -> float:
    """Return how many they are."""
    return sum(count for count, _ in weights.values())


def draft(d: Dims, storage: Storage, tp: int) -> Weights:
    """Return the draft head without its routed experts and its output head."""
    return {**dense(d, 0, tp, storage.draft), "projections": (2 * d.hidden * d.hidden, storage.draft.projections)}


def bf16(weights: Weights) -> dict[str, float]:
    """Return the bytes of those that are stored in BF16."""
    return {name: count * size for name, (count, size) in weights.items() if size == BF16}


def in_bf16(d: Dims, storage: Storage, *, draft_tokens: int, tp: int) -> dict[str, float]:
    """Return the bytes that a step's BF16 GEMMs read on one of `tp` GPUs, but for routed experts."""
    found: dict[str, float] = {}
    for ratio in d.ratios:
        for name, size in bf16(dense(d, ratio, tp, storage.target)).items():
            found[name] = found.get(name, 0.0) + size
    found["the draft head"] = draft_tokens * sum(bf16(draft(d, storage, tp)).values())
    found["lm_head, target and draft"] = (1 + draft_tokens) * d.vocab * d.hidden / tp * BF16
    return {name: size for name, size in found.items() if size}


def touched(d: Dims, tokens: int) -> float:
    """Return how many of a layer's routed experts get at least one of `tokens` tokens."""
    return d.experts * (1 - (1 - d.top_k / d.experts) ** tokens)


def step(d: Dims, storage: Storage, *, batch: int, draft_tokens: int, tp: int) -> Step:
    """Return what one step of `batch` sequences reads and computes on one of `tp` GPUs."""
    tokens = batch * (1 + draft_tokens)
    expert = 3 * d.inter * d.hidden / tp
    head = d.vocab * d.hidden / tp
    size = head * BF16
    weights = head + d.layers * d.top_k * expert
    for ratio in d.ratios:
        layer = dense(d, ratio, tp, storage.target)
        size += read(layer) + touched(d, tokens) * expert * storage.experts
        weights += numbers(layer)
    operations = 2 * weights * tokens
    layer = draft(d, storage, tp)
    for number in range(draft_tokens):
        drafted = tokens if number == 0 else batch
        size += read(layer) + head * BF16 + touched(d, drafted) * expert * storage.draft_experts
        operations += 2 * (numbers(layer) + d.top_k * expert) * drafted + 2 * head * batch
    return Step(size, operations, touched(d, tokens))


def total_gib(d: Dims, storage: Storage) -> float:
    """Return the size of all weights, to hold against the model's profile file."""
    expert = 3 * d.inter * d.hidden
    size = 2 * d.vocab * d.hidden * BF16 + d.layers * d.experts * expert * storage.experts
    size += sum(read(dense(d, ratio, 1, storage.target)) for ratio in d.ratios) + read(draft(d, storage, 1))
    return (size + d.experts * expert * storage.draft_experts) / 2**30


def main() -> int:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description="What one decoding step takes at least.")
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--tensor-parallel-size", type=int, default=2)
    parser.add_argument("--draft-tokens", type=int, default=1)
    parser.add_argument("--acceptance", type=float, default=0.89, help="accepted / drafted tokens")
    parser.add_argument("--bandwidth", type=float, required=True, help="TB/s that a GPU reads, measured")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--bf16", action="store_true", help="what the BF16 GEMMs read, and what FP8 would save at most")
    o = parser.parse_args()
    name, storage = MODELS[o.model]
    if o.bf16:
        print("| BF16 GEMMs of a step | MB a GPU | ms at least | ms that FP8 would save at most |\n|---|---|---|---|")
        sizes = in_bf16(SIZES[name], storage, draft_tokens=o.draft_tokens, tp=o.tensor_parallel_size)
        for part, size in (*sizes.items(), ("all", sum(sizes.values()))):
            least = size / o.bandwidth / 1e9
            print(f"| {part} | {size / 1e6:,.0f} | {least:.2f} | {least / 2:.2f} |")
        return 0
    produced = sum(o.acceptance**n for n in range(o.draft_tokens + 1))
    print("| batch | experts read of 256 | GB a GPU | GFLOP a GPU | ms at least | output tok/s at most |")
    print("|---|---|---|---|---|---|")
    for batch in o.batch:
        one = step(SIZES[name], storage, batch=batch, draft_tokens=o.draft_tokens, tp=o.tensor_parallel_size)
        seconds = one.bytes / o.bandwidth / 1e12
        print(
            f"| {batch} | {one.experts:.0f} | {one.bytes / 1e9:.2f} | {one.operations / 1e9:.0f} | {seconds * 1e3:.2f}"
            f" | {batch * produced / seconds:,.0f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
