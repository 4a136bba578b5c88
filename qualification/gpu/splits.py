"""
The time of the hyper connections of one decode step, by the number of splits of their GEMM.

    bash qualification/gpu/on_host.sh splits      # python -m qualification.gpu.splits, on an unpacked host

vLLM's own code runs with each number in place of the one that `compute_num_split` chooses: post, GEMM and the kernel
that sums over the splits, once for each of the sums of a step of V4-Flash, in one CUDA graph. Every sum has weights of
its own, so that they come from memory as in a step, not from the L2 cache. The order of the numbers turns each round.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HIDDEN, STREAMS, SUMS = 4096, 4, 85  # 43 layers with two sums each, but the first of them
SPLITS = (16, 32, 64)
TOKENS = (33, 40, 48, 56, 64, 96, 128)
ROUNDS, REPLAYS = 15, 20


def step(tokens: int, layers: list[Any]) -> Callable[[], Any]:
    """Return what runs all sums of a step for so many tokens."""
    import torch
    from vllm.model_executor.kernels.mhc.tilelang import mhc_fused_post_pre_tilelang

    torch.manual_seed(1)
    x = torch.randn(tokens, HIDDEN, device="cuda", dtype=torch.bfloat16)
    residual = torch.randn(tokens, STREAMS, HIDDEN, device="cuda", dtype=torch.bfloat16)
    post = torch.rand(tokens, STREAMS, 1, device="cuda")
    comb = torch.full((tokens, STREAMS, STREAMS), 1 / STREAMS, device="cuda")
    scale = torch.ones(3, device="cuda")
    base = torch.zeros(STREAMS * (STREAMS + 2), device="cuda")
    norm = torch.ones(HIDDEN, device="cuda", dtype=torch.bfloat16)

    def run() -> Any:
        for weights in layers:
            found = mhc_fused_post_pre_tilelang(
                x, residual, post, comb, weights, scale, base, 1e-6, 1e-6, 1e-6, 2.0, 20, norm_weight=norm
            )
        return found

    return run


def captured(splits: int, run: Callable[[], Any]) -> tuple[Any, Any]:
    """Return the CUDA graph of a step with this number of splits, and what its last sum gives."""
    import torch
    from vllm.model_executor.kernels.mhc import tilelang_kernels

    tilelang_kernels.compute_num_split = lambda *_: splits
    run()  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    return graph, found


def microseconds(graph: Any) -> float:
    """Return the mean time of one replay."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(REPLAYS):
        graph.replay()
    end.record()
    end.synchronize()
    return 1000 * begin.elapsed_time(end) / REPLAYS


def measure(tokens: int, layers: list[Any]) -> dict[str, Any]:
    """Return the median time of a step for each number of splits, and how far its input to the layer is from 64's."""
    graphs = {splits: captured(splits, step(tokens, layers)) for splits in SPLITS}
    for graph, _ in graphs.values():
        graph.replay()
    reference = graphs[SPLITS[-1]][1][-1].float()
    times: dict[int, list[float]] = {splits: [] for splits in SPLITS}
    for number in range(ROUNDS):
        for offset in range(len(SPLITS)):
            splits = SPLITS[(number + offset) % len(SPLITS)]
            times[splits].append(microseconds(graphs[splits][0]))
    return {
        "tokens": tokens,
        "microseconds": {splits: round(statistics.median(all_of_it), 1) for splits, all_of_it in times.items()},
        "range": {splits: [round(min(each), 1), round(max(each), 1)] for splits, each in times.items()},
        "difference": {
            splits: float((found[-1].float() - reference).abs().max()) for splits, (_, found) in graphs.items()
        },
    }


def main() -> int:
    """Print one JSON object; a line a number of tokens goes to stderr meanwhile."""
    import torch
    import vllm
    from vllm.utils.deep_gemm import is_deep_gemm_supported

    if not is_deep_gemm_supported():
        print("this GPU does not run the GEMM that is split (DeepGEMM)", file=sys.stderr)
        return 1
    shape = (STREAMS * (STREAMS + 2), STREAMS * HIDDEN)
    layers = [torch.randn(shape, device="cuda") / shape[1] ** 0.5 for _ in range(SUMS)]
    rows = []
    for tokens in TOKENS:
        rows.append(measure(tokens, layers))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    found = {
        "program": "qualification/gpu/splits.py",
        "hardware": torch.cuda.get_device_name(),
        "versions": {"vllm": vllm.__version__, "torch": torch.__version__},
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "sums": SUMS,
        "rows": rows,
    }
    text = json.dumps(found, indent=2)
    print(text)
    if out := os.environ.get("OUT"):
        Path(out, "splits.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
