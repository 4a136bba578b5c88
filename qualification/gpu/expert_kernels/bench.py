"""One layer of experts on a GPU: random weights in the packed format, and the time of a schedule as vLLM launches it."""

from __future__ import annotations

import gc
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from qualification.gpu.expert_kernels import kernels
from qualification.gpu.expert_kernels.layers import EXPERTS, TOP_K, Layer, mean_bytes, routes
from qualification.gpu.expert_kernels.measure import prompts
from qualification.gpu.expert_kernels.schedules import Schedule

ROUTES = 8
"""Routes of a step, one after the other: each reads weights that the one before did not leave in the cache."""
PROMPT_ROUTES = 2
"""The same for steps of prompts, each of which reads all weights, more than the cache holds."""


@dataclass(frozen=True)
class Step:
    """Inputs and routes of a number of tokens; the bytes that a launch moves at least, and its products and sums."""

    tokens: int
    inputs: torch.Tensor
    scales: torch.Tensor | None
    output: torch.Tensor
    routes: Sequence[torch.Tensor]
    bytes_moved: float
    products: float
    aligned: dict[int, list[tuple[torch.Tensor, ...]]] = field(default_factory=dict)

    def sorted_by_expert(self, rows: int) -> list[tuple[torch.Tensor, ...]]:
        """Return vLLM's lists of rows for each expert, in tiles of so many rows."""
        if rows not in self.aligned:
            self.aligned[rows] = [align(route, rows) for route in self.routes]
        return self.aligned[rows]


def align(route: torch.Tensor, rows: int) -> tuple[torch.Tensor, ...]:
    """Sort rows by expert, as HummingIndexedExperts does it."""
    from vllm.model_executor.layers.fused_moe.moe_align_block_size import moe_align_block_size

    return moe_align_block_size(
        topk_ids=route, block_size=rows, num_experts=EXPERTS, expert_map=None, ignore_invalid_experts=True
    )[:3]


class Bench:
    """Weights of one layer on the GPU, and what launches its kernels."""

    def __init__(self, layer: Layer, device: str = "cuda:0") -> None:
        from vllm.utils.humming import create_humming_locks

        gc.disable()  # a collection while a graph is captured would end the capture
        self.layer, self.device, self.config = layer, device, kernels.config(layer)
        self.weights = weights(layer, device)
        self.locks = create_humming_locks(device)
        self.compute, self.stream = json.dumps(kernels.COMPUTE), torch.cuda.Stream(device)

    def step(self, tokens: int) -> Step:
        """Return inputs and routes of a number of tokens, the same for every schedule."""
        from vllm.utils.humming import may_process_input

        n, k = self.layer.shape
        rows = tokens if self.layer.sublayer == "w13" else tokens * TOP_K
        generator = torch.Generator(self.device).manual_seed(tokens)
        inputs = torch.randn((rows, k), generator=generator, device=self.device, dtype=torch.bfloat16)
        scales = None
        if self.layer.fp8:
            inputs, of_groups, of_tokens = may_process_input(self.config, inputs=inputs)
            scales = of_groups if self.layer.groups else of_tokens
        output = torch.empty((tokens * TOP_K, n), dtype=torch.bfloat16, device=self.device)
        drawn = list(routes(tokens, PROMPT_ROUTES if prompts(tokens) else ROUTES, tokens))
        found, moved = [one.to(self.device) for one in drawn], mean_bytes(self.layer, drawn)
        return Step(tokens, inputs, scales, output, found, moved, self.layer.products(tokens))

    def load(self, schedule: Schedule) -> None:
        """Load a schedule's kernel, compiled before or now."""
        kernels.humming("kernel.humming").HummingKernel.prepare_kernels(
            self.config.to_str(), self.compute, json.dumps(schedule), torch.device(self.device)
        )

    def launch(self, schedule: str, step: Step, lists: tuple[torch.Tensor, ...]) -> None:
        """Launch a product by the path of vLLM's experts."""
        from vllm.utils.humming import humming_forward

        sorted_ids, expert_ids, padded = lists
        humming_forward(
            self.config, inputs=step.inputs, input_scale=step.scales, outputs=step.output, locks=self.locks,
            sorted_ids=sorted_ids, expert_ids=expert_ids, num_tokens_padded=padded, top_k=self.layer.top_k,
            valid_shape_m=step.tokens * TOP_K, compute_config=self.compute, tuning_config=schedule, **self.weights,
        )  # fmt: skip

    def result(self, schedule: Schedule, step: Step) -> torch.Tensor:
        """Return the outputs of the first route; rows that the kernel leaves out are not numbers."""
        step.output.fill_(torch.nan)
        self.locks.zero_()  # a kernel that gave up may have left some behind
        self.launch(json.dumps(schedule), step, step.sorted_by_expert(schedule["block_shape"][0])[0])
        torch.cuda.synchronize()
        return step.output.clone()

    def timed(self, schedule: Schedule, step: Step, replays: int) -> list[float]:
        """Return the microseconds of one launch, for each replay of a graph of all routes."""
        text, lists = json.dumps(schedule), step.sorted_by_expert(schedule["block_shape"][0])
        return self.replayed(lambda: [self.launch(text, step, one) for one in lists], len(lists), replays)

    def aligning(self, step: Step, rows: int, replays: int) -> list[float]:
        """Return the microseconds that sorting rows by expert takes, once more than vLLM has to."""
        return self.replayed(lambda: [align(route, rows) for route in step.routes], len(step.routes), replays)

    def replayed(self, launches: Callable[[], Any], count: int, replays: int) -> list[float]:
        """Capture launches in a graph, as vLLM does; return the microseconds of each replay for one of `count`."""
        launches()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self.stream):
            graph.capture_begin()
            kept = launches()
            graph.capture_end()
            graph.replay()
            marks = [
                (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(replays)
            ]
            for begin, end in marks:
                begin.record()
                graph.replay()
                end.record()
        self.stream.synchronize()
        del kept
        return [begin.elapsed_time(end) * 1000 / count for begin, end in marks]


def weights(layer: Layer, device: str) -> dict[str, torch.Tensor]:
    """Return random weights of all experts, packed by Humming for its kernels as vLLM does it at loading."""
    from vllm.utils.humming import prepare_and_transform_humming_tensors

    n, k = layer.shape
    generator = torch.Generator(device).manual_seed(1)
    packed = torch.randint(
        -(2**31), 2**31, (EXPERTS, n, k // 8), generator=generator, device=device, dtype=torch.int64
    ).to(torch.int32)
    if layer.format == "int4":
        scale = torch.rand((EXPERTS, n, k // 128), generator=generator, device=device) * 0.01 + 0.005
        scale = scale.to(torch.bfloat16)
    else:
        powers = torch.randint(117, 122, (EXPERTS, n, k // 32), generator=generator, device=device)
        scale = powers.to(torch.uint8).view(torch.float8_e8m0fnu)
    schema, inputs = kernels.schemas(layer.format)
    made, tensors = prepare_and_transform_humming_tensors(
        tensors={"weight": packed, "weight_scale": scale}, shape_n=n, shape_k=k, pad_n_to_multiple=256,
        pad_k_to_multiple=128, input_schema=inputs, weight_schema=schema, has_bias=False, num_experts=EXPERTS,
        torch_dtype=torch.bfloat16, device=torch.device(device),
    )  # fmt: skip
    if made.to_str() != kernels.config(layer).to_str():
        raise RuntimeError(f"weights are not those of {layer}: {made.to_str()}")
    wanted = ("weight", "weight_scale", "weight_scale_2", "zero_point")
    return {name: tensor for name, tensor in tensors.items() if name in wanted}


def difference(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest value; infinite where a value is not a number."""
    found = ((result.float() - expected.float()).abs().max() / expected.float().abs().max()).item()
    return math.inf if math.isnan(found) else found


def middle(times: Sequence[float]) -> tuple[float, float]:
    """Return the median, and how far apart the quartiles lie as a share of it."""
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return median, (high - low) / median


def device_name() -> str:
    """Return the GPU's name, as vLLM has it."""
    from vllm.platforms import current_platform

    return str(current_platform.get_device_name())
