"""
What FlashInfer's CUTLASS kernels take for a layer of MXFP4 experts with FP8 inputs on SM 9.0, beside those of expert_kernels.

    python -m qualification.gpu.flashinfer_experts measure --out rows.jsonl [--ways 2] [--tokens 32 8192] [--seconds 120]
    python -m qualification.gpu.flashinfer_experts keep rows.jsonl --out FILE --driver VERSION --date 2026-11-30

`measure` runs in a Python that has FlashInfer with these experts compiled: SGLang's, which serves them with
`--flashinfer-mxfp4-moe-precision fp8`. Each input has one scale for each token. A row has the microseconds of the whole
layer (inputs quantized, rows sorted, both products, SwiGLU, the sum) and of each of its kernels, by torch's profiler.
`keep` makes a result of rows, with both products and without the kernels' long names.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from qualification.gpu.expert_kernels import kept
from qualification.gpu.expert_kernels.layers import EXPERTS, HIDDEN, INTERMEDIATE, TOP_K, routes
from qualification.gpu.expert_kernels.measure import TOKENS, read

ROUTES, REPLAYS = 4, 7
"""Routes of a step, one after the other, so that weights come from memory; replays of the graph that holds them."""
COMPENSATION = 64.0
"""What FlashInfer wants the scale of an expert multiplied by (`cutlass_fused_moe`, `use_wfp4afp8_humming`)."""
LIMIT = 10.0
"""DeepSeek-V4's limit of SwiGLU."""
PRODUCTS = "device_kernel"
"""What the names of the kernels have that multiply; `gemm` is in namespaces of others, too."""
AT_ONCE = 32
"""Experts whose weights are packed at once: packing takes many times their memory."""


def main() -> None:
    parser = argparse.ArgumentParser(description="FlashInfer's MXFP4 experts with FP8 inputs.")
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("measure")
    step.add_argument("--out", type=Path, required=True)
    step.add_argument("--ways", type=int, default=2, help="GPUs that share each expert")
    step.add_argument("--tokens", type=int, nargs="*", default=TOKENS)
    step.add_argument("--seconds", type=float, default=120.0, help="no step begins after so many")
    kept.add_step(steps)
    options, began = parser.parse_args(), time.monotonic()
    if options.step == "keep":
        kept.write(options.out, result(read(options.rows), options))
        return
    import flashinfer  # pyright: ignore[reportMissingImports]

    layer = Layer(options.ways)
    with options.out.open("a", encoding="utf-8") as file:
        for tokens in options.tokens:
            if time.monotonic() - began > options.seconds:
                print(f"{tokens} tokens and what follows: no time left", flush=True)
                break
            row = {"layer": f"flashinfer,{options.ways}", "tokens": tokens, "flashinfer": flashinfer.__version__}
            row |= {"device": torch.cuda.get_device_name(), **layer.measured(tokens)}
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"{tokens:5} tokens: {row['us']:9.1f} us, products {row['products_us']:9.1f} us", flush=True)


class Layer:
    """Random weights of one layer on the GPU, packed by FlashInfer."""

    def __init__(self, ways: int) -> None:
        part = INTERMEDIATE // ways
        self.up, up_scale, up_rest = packed(2 * part, HIDDEN, 1)
        self.down, down_scale, down_rest = packed(HIDDEN, part, 2)
        one = torch.ones((), device="cuda")
        self.scales = [up_scale.view(torch.int32), up_rest, one, down_scale.view(torch.int32), down_rest]
        self.limit = torch.full((EXPERTS,), LIMIT, device="cuda")

    def launch(self, inputs: torch.Tensor, route: torch.Tensor, shares: torch.Tensor, output: torch.Tensor) -> None:
        """Compute the experts of each token, as SGLang 0.5.23 calls FlashInfer."""
        from flashinfer.fused_moe import cutlass_fused_moe  # pyright: ignore[reportMissingImports]

        cutlass_fused_moe(
            input=inputs, token_selected_experts=route, token_final_scales=shares, fc1_expert_weights=self.up,
            fc2_expert_weights=self.down, output_dtype=torch.bfloat16, quant_scales=self.scales, swiglu_limit=self.limit,
            use_w4_group_scaling=True, use_wfp4afp8_humming=True, use_fused_finalize=False, output=output,
        )  # fmt: skip

    def measured(self, tokens: int) -> dict[str, Any]:
        """Return the microseconds of a step of so many tokens, with FlashInfer's fastest tactic for it."""
        from flashinfer import autotune  # pyright: ignore[reportMissingImports]

        generator = torch.Generator("cuda").manual_seed(tokens)
        inputs = torch.randn((tokens, HIDDEN), generator=generator, device="cuda", dtype=torch.bfloat16)
        output, shares = torch.empty_like(inputs), torch.full((tokens, TOP_K), 1 / TOP_K, device="cuda")
        found = [one.cuda() for one in routes(tokens, ROUTES, tokens)]
        began = time.monotonic()
        with autotune(True, tuning_buckets=(tokens,)):
            self.launch(inputs, found[0], shares, output)
        tuned = time.monotonic() - began
        with autotune(False, tuning_buckets=(tokens,)):
            times, kernels = replayed(lambda: [self.launch(inputs, one, shares, output) for one in found])
        return {
            "us": round(statistics.median(times) / ROUTES, 3), "products_us": round(sum(products(kernels)) / ROUTES, 3),
            "kernels": {name: round(us / ROUTES, 3) for name, us in kernels.items()}, "tuned_s": round(tuned, 1),
            "finite": bool(output.isfinite().all()),
        }  # fmt: skip


def products(kernels: Mapping[str, float]) -> list[float]:
    """Return the microseconds of the kernels that multiply, the longest first; one where both products have the same."""
    return sorted((us for name, us in kernels.items() if PRODUCTS in name), reverse=True)


def result(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Return the result of rows: by tokens, what the layer took, and its kernels that multiply."""
    heads = {(row["layer"], row["device"], row["flashinfer"]) for row in rows}
    layer, device, version = kept.only(heads, "layers, GPUs and versions of FlashInfer", options.rows)
    return {
        **kept.head(options, "qualification/gpu/flashinfer_experts.py", device, {"flashinfer": version}),
        "layer": layer,
        "rows": [
            {
                "tokens": row["tokens"], "us": row["us"], "products_us": round(sum(products(row["kernels"])), 3),
                "products": products(row["kernels"]), "finite": row["finite"],
            }
            for row in sorted(rows, key=lambda row: row["tokens"])
        ],
    }  # fmt: skip


def packed(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return random MXFP4 weights of all experts, (experts, rows, columns), with their scales and each expert's scale."""
    from flashinfer.fused_moe import preprocess_moe_weights_for_sm90_mixed_gemm_humming  # pyright: ignore[reportMissingImports]

    generator = torch.Generator("cuda").manual_seed(seed)

    def drawn(low: int, high: int, width: int) -> torch.Tensor:
        found = torch.randint(low, high, (AT_ONCE, rows, width), generator=generator, device="cuda")
        return found.to(torch.uint8)

    parts = [
        preprocess_moe_weights_for_sm90_mixed_gemm_humming(drawn(0, 256, columns // 2), drawn(117, 122, columns // 32))
        for _ in range(EXPERTS // AT_ONCE)
    ]
    weights, scales, rest = (torch.cat(each) for each in zip(*parts, strict=True))
    return weights, scales, (rest * COMPENSATION).contiguous()


def replayed(launches: Callable[[], object]) -> tuple[list[float], Mapping[str, float]]:
    """Capture launches in a graph; return the microseconds of each replay, and those of each kernel in one of them."""
    launches()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launches()
    graph.replay()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(REPLAYS)]
    for begin, end in marks:
        begin.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        graph.replay()
        torch.cuda.synchronize()
    return [begin.elapsed_time(end) * 1000 for begin, end in marks], by_name(profile.events() or ())


def by_name(events: Iterable[Any]) -> Mapping[str, float]:
    """Return the microseconds of each kernel that a profile saw, by its name, the longest first."""
    found: dict[str, float] = defaultdict(float)
    for event in events:
        found[event.name] += event.device_time_total
    return dict(sorted(found.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    main()
