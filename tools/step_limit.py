"""
What one decoding step has to read and to compute, and how long that takes at least.

    python -m tools.step_limit w4a16 --tensor-parallel-size 2 --draft-tokens 1 --bandwidth 4.0 --batch 1 4 16

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
class Storage:
    """Bytes a weight, by what it belongs to."""

    experts: float
    attention: float = FP8
    compressor: float = BF16
    draft: float = BF16
    draft_experts: float = BF16


MODELS = {
    "w4a16": ("deepseek-v4-flash", Storage(INT4)),
    "acti": ("deepseek-v4-flash", Storage(INT4, compressor=FP8, draft=FP8, draft_experts=INT4)),
    "nvfp4": ("deepseek-v4-flash", Storage(NVFP4)),
    "flash": ("deepseek-v4-flash", Storage(MXFP4, draft=FP8, draft_experts=MXFP4)),
}


@dataclass(frozen=True)
class Step:
    """One step of one GPU: bytes read and floating-point operations, experts of a layer that are read."""

    bytes: float
    operations: float
    experts: float


def dense(d: Dims, ratio: int, tp: int, attention: float, compressor: float) -> tuple[float, float]:
    """Return (bytes, weights) of one layer without its routed experts, on one GPU."""
    split = d.heads * HEAD_DIM * d.q_lora + d.heads * HEAD_DIM * d.o_lora + d.hidden * d.o_groups * d.o_lora
    split += 3 * d.inter * d.hidden  # the shared expert
    whole = (d.q_lora + HEAD_DIM) * d.hidden
    small = 2 * HEAD_DIM * (2 if ratio == 4 else 1) * d.hidden if ratio else 0
    if ratio == 4:
        small += d.index_heads * 128 * d.q_lora + d.index_heads * d.hidden + 2 * 2 * 128 * d.hidden
    router = d.experts * d.hidden
    streams = 2 * (2 + HC) * HC * HC * d.hidden
    read = (split / tp + whole) * attention + small * compressor + router * BF16 + streams * F32
    return read, split / tp + whole + small + router + streams


def touched(d: Dims, tokens: int) -> float:
    """Return how many of a layer's routed experts get at least one of `tokens` tokens."""
    return d.experts * (1 - (1 - d.top_k / d.experts) ** tokens)


def step(d: Dims, storage: Storage, *, batch: int, draft_tokens: int, tp: int) -> Step:
    """Return what one step of `batch` sequences reads and computes on one of `tp` GPUs."""
    tokens = batch * (1 + draft_tokens)
    expert = 3 * d.inter * d.hidden / tp
    head = d.vocab * d.hidden / tp
    read = head * BF16
    weights = head + d.layers * d.top_k * expert
    for ratio in d.ratios:
        layer_read, layer_weights = dense(d, ratio, tp, storage.attention, storage.compressor)
        read += layer_read + touched(d, tokens) * expert * storage.experts
        weights += layer_weights
    operations = 2 * weights * tokens
    for number in range(draft_tokens):
        drafted = tokens if number == 0 else batch
        layer_read, layer_weights = dense(d, 0, tp, storage.draft, storage.draft)
        projections = 2 * d.hidden * d.hidden
        read += layer_read + projections * storage.draft + head * BF16
        read += touched(d, drafted) * expert * storage.draft_experts
        operations += 2 * (layer_weights + projections + d.top_k * expert) * drafted + 2 * head * batch
    return Step(read, operations, touched(d, tokens))


def total_gib(d: Dims, storage: Storage) -> float:
    """Return the size of all weights, to hold against the model's profile file."""
    expert = 3 * d.inter * d.hidden
    size = 2 * d.vocab * d.hidden * BF16 + d.layers * d.experts * expert * storage.experts
    size += sum(dense(d, ratio, 1, storage.attention, storage.compressor)[0] for ratio in d.ratios)
    size += dense(d, 0, 1, storage.draft, storage.draft)[0] + 2 * d.hidden**2 * storage.draft
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
    o = parser.parse_args()
    name, storage = MODELS[o.model]
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
