"""
Where a GPU's time goes: the kernels of a Chrome trace, as torch's profiler writes it, by family.

    python -m tools.kernel_time TRACE.json.gz

`share` is of the span from the first kernel to the end of the last one; `idle` is the part of it in which none ran.
Kernels of several streams can run at once, so shares can add up to more than 100 %.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAMILIES = (
    ("all-reduce", r"all_?reduce|cross_device_reduce|nccl|one_?shot|two_?shot|multimem|all_?gather|reduce_?scatter"),
    ("experts", r"moe|expert|humming|marlin|wna16|group_?(ed|gemm|problem)|topk_softplus|silu_and_mul|swiglu|permute"),
    ("indexer", r"indexer|mqa_logits|top_?k"),
    ("compressor", r"compress"),
    ("attention", r"attn|attention|mla|flash|sparse_?(fwd|decode)|combine|rope|kv_?cache|swa(?!pab)"),
    ("hyper-connections", r"\bhc_|_hc_|mhc|sinkhorn|hyper"),
    ("FP8 GEMM", r"fp8.*gemm|gemm.*fp8|deep_?gemm|sm90_fp8|blockscale|block_scaled"),
    ("other GEMM", r"gemm|nvjet|cutlass|cublas|splitk|matmul|gemv|dot"),
    ("quantize", r"quant"),
    ("norm", r"norm"),
    ("sampling", r"sampl|argmax|softmax|reject|logits|draft|spec"),
    ("copy", r"memcpy|memset|copy|cat_|index|gather|scatter|fill"),
    ("torch and Triton, other", r"triton|elementwise|reduce|at::native"),
)
"""Names of kernels that belong together; the first that matches counts."""
_PATTERNS = [(name, re.compile(pattern, re.IGNORECASE)) for name, pattern in FAMILIES]
_ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
_SHOWN = 90  # characters of a kernel's name
_NAMED = 8  # kernels of a family


@dataclass(frozen=True)
class Family:
    """Kernels that belong together: how many ran, their time in ms, the share of the span, and the longest of them."""

    name: str
    count: int
    ms: float
    share: float
    longest: str
    """The kernel with the most time in all, and its part of the family's."""
    kernels: tuple[str, ...] = ()
    """The longest ones: ms, calls, name."""


def read(path: Path) -> dict[str, Any]:
    """Return a trace; one that is packed is unpacked."""
    data = path.read_bytes()
    found: dict[str, Any] = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    return found


def by_family(trace: Mapping[str, Any]) -> list[Family]:
    """Return the families of a trace, the one with the most time first; `idle` and `span` are the last two."""
    events = [event for event in trace["traceEvents"] if event.get("cat") in _ON_GPU and event.get("ph") == "X"]
    if not events:
        return []
    times: dict[str, dict[str, list[float]]] = {}
    for event in events:
        times.setdefault(family(event["name"]), {}).setdefault(event["name"], []).append(float(event["dur"]))
    spans = [(float(event["ts"]), float(event["ts"]) + float(event["dur"])) for event in events]
    span = max(end for _, end in spans) - min(start for start, _ in spans)
    found = [_family(name, kernels, span) for name, kernels in times.items()]
    idle = span - covered(spans)
    rest = [
        Family("idle", 0, round(idle / 1000, 3), round(idle / span, 4), ""),
        Family("span", len(events), round(span / 1000, 3), 1.0, ""),
    ]
    return [*sorted(found, key=lambda one: -one.ms), *rest]


def family(kernel: str) -> str:
    """Return the family of a kernel by its name; `other` for one that no pattern knows."""
    return next((name for name, pattern in _PATTERNS if pattern.search(kernel)), "other")


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _family(name: str, kernels: Mapping[str, list[float]], span: float) -> Family:
    total = sum(sum(one) for one in kernels.values())
    longest = sorted(kernels, key=lambda kernel: -sum(kernels[kernel]))[:_NAMED]
    part = sum(kernels[longest[0]]) / total if total else 0.0
    count = sum(len(one) for one in kernels.values())
    shown = f"{part:.0%} {len(kernels[longest[0]])} x {longest[0][:_SHOWN]}"
    named = tuple(f"{sum(kernels[one]) / 1000:.3f} ms {len(kernels[one])} x {one[:_SHOWN]}" for one in longest)
    return Family(name, count, round(total / 1000, 3), round(total / span, 4), shown, named)


def table(found: Sequence[Family]) -> str:
    """Return the families as a table."""
    lines = [f"{'family':24} {'count':>8} {'ms':>10} {'share':>7}  most of it"]
    for one in found:
        lines.append(f"{one.name:24} {one.count:8} {one.ms:10.3f} {one.share:7.1%}  {one.longest}")
        lines += [f"{'':53} {kernel}" for kernel in one.kernels[1:]]
    return "\n".join(lines)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        try:
            print(table(by_family(read(Path(argument)))))
        except (OSError, EOFError, ValueError, LookupError) as error:
            sys.exit(f"{argument}: not a trace of torch's profiler that can be read ({error}).")
