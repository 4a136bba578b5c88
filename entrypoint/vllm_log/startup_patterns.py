"""
The log lines that show the progress of a start: of vLLM 0.32.0, and of the packages that compile its kernels.

On a GPU they come in this order: imports, ranks connect, weights load, a first pass of the model (which compiles
kernels and profiles memory), CUDA graphs captured on trial to size them, the KV cache, kernel warm-up and
autotuning, CUDA graphs, the API. The comments name the files below vllm/ where the lines are written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .parser import LogLine

CAPTURED, READY = "graphs captured", "engine ready"


@dataclass(frozen=True)
class StartupMark:
    """What a line shows: the phase, its progress in percent, a short detail, and whether a cache was cold."""

    phase: str
    percent: float | None = None
    detail: str = ""
    cold: bool | None = None


_BAR = r".*? (?P<i>\d+)/(?P<n>\d+) \["  # tqdm: `desc:  45%|████▌     | 355/790 [01:02<01:16,  5.72it/s`
_SHARDS = r"(?P<percent>\d+)% Completed \| (?P<i>[\w.]+)/(?P<n>[\w.]+) \["  # weight_utils.py _BAR_FORMAT
_PATTERNS: tuple[tuple[str, str, str, bool | None], ...] = (
    # entrypoints/serve/utils/api_utils.py, config/model.py, v1/engine/core.py, distributed/parallel_state.py
    (r"non-default args", "starting", "arguments read", None),
    (r"Resolved architecture: (?P<i>\w+)", "starting", "architecture {i}", None),
    (r"Initializing a V1 LLM engine", "starting", "engine core", None),
    (r"world_size=(?P<n>\d+) rank=(?P<i>\d+)", "starting", "rank {i} of {n}", None),
    # distributed/device_communicators/pynccl.py and cuda_communicator.py; not with one rank
    (r"vLLM is using nccl==(?P<i>\S+)", "connecting ranks", "NCCL {i}", None),
    (r"Using .* all-reduce backends .* for group '(?P<i>[^']+)'", "connecting ranks", "group {i}", None),
    # distributed/parallel_state.py, v1/worker/gpu/model_runner.py, cpu_model_runner.py, model_loader/*.py
    (r"rank \d+ in world size \d+ is assigned as", "loading weights", "building the model", None),
    (r"Loading model from scratch|Starting to load model", "loading weights", "building the model", None),
    (r"Initializing model took", "loading weights", "model built", None),
    (r"Prefetching checkpoint files: (?P<i>\d+)%", "loading weights", "prefetching, {i} %", None),
    (r"Loading [\w ]*(shards|loader)( \(eager\))?: +" + _SHARDS, "loading weights", "shard {i} of {n}", None),
    (r"Multi-thread loading [\w ]*shards: +" + _SHARDS, "loading weights", "shard {i} of {n}", None),
    (r"MTP draft model loaded: (?P<i>\d+) params", "loading weights", "draft head of {i} parameters", None),
    (r"Loading weights took", "loading weights", "preparing the weights", None),
    # v1/worker/gpu/model_runner.py: next is the first pass, v1/worker/gpu_worker.py determine_available_memory
    (r"Model loading took", "compiling kernels", "first pass of the model", None),
    # tilelang 0.1.12 jit/kernel.py: only where its cache has no such kernel; flashinfer 0.7.0 jit/core.py likewise
    (r".*TileLang begins to compile kernel `(?P<i>\w+)`", "compiling kernels", "TileLang {i}", True),
    (r".*TileLang completes to compile kernel `(?P<i>\w+)`", "compiling kernels", "TileLang {i} done", True),
    (r".*flashinfer\.jit: Building JIT module (?P<i>[^;]+);", "compiling kernels", "FlashInfer {i}", True),
    (r".*flashinfer\.jit: \[Autotuner\]: (?P<i>[^.]+)", "compiling kernels", "FlashInfer: {i}", None),
    (r"\[AutoTuner\]: Tuning (?P<op>[^:]+):" + _BAR, "compiling kernels", "FlashInfer: tuning {op}, {i} of {n}", None),
    # compilation/monitor.py, backends.py, decorators.py; `[tag] ` may come first
    (r"(\[\S+\] )?Starting torch\.compile", "compiling kernels", "torch.compile", None),
    (r"(\[\S+\] )?Dynamo bytecode transform time", "compiling kernels", "torch.compile, after Dynamo", None),
    (r"(\[\S+\] )?Cache the graph of compile range (?P<i>.+) for", "compiling kernels", "torch.compile {i}", True),
    (r"(\[\S+\] )?Compiling a graph for compile range (?P<i>.+) takes", "compiling kernels", "graph {i}", True),
    (r"(\[\S+\] )?saved AOT compiled function", "compiling kernels", "torch.compile saved", True),
    (r"(\[\S+\] )?Directly load AOT compilation", "compiling kernels", "torch.compile, from its cache", False),
    (r"(\[\S+\] )?Directly load the compiled graph", "compiling kernels", "torch.compile, from its cache", False),
    (r"(\[\S+\] )?torch\.compile (took|and initial)", "compiling kernels", "torch.compile done", None),
    # v1/worker/gpu_worker.py, cpu_worker.py, gpu_model_runner.py; v1/core/kv_cache_utils.py; utils/mem_utils.py
    (r"Profiling CUDA graph memory|Estimated CUDA graph memory", "profiling", "CUDA graph memory", None),
    (r"(Initial free memory|Memory profiling takes|Explicitly set \()", "profiling", "free memory measured", None),
    (r"Available KV cache memory: (?P<i>\S+) GiB", "profiling", "{i} GiB for the KV cache", None),
    (r"\w+ KV cache size: (?P<i>[\d,]+) tokens", "profiling", "KV cache of {i} tokens", None),
    # model_executor/warmup/*.py, v1/worker/gpu_worker.py compile_or_warm_up_model, v1/worker/cpu_model_runner.py
    (r"DeepGEMM warmup:" + _BAR, "compiling kernels", "DeepGEMM shape {i} of {n}", None),
    (r"JIT kernel warmup \(\d+ compile keys\):" + _BAR, "compiling kernels", "JIT kernel {i} of {n}", None),
    (r"Compiling CuTeDSL kernels:" + _BAR, "compiling kernels", "CuTeDSL kernel {i} of {n}", None),
    (r"JIT kernel warmup (?P<i>starting|finished)", "compiling kernels", "JIT kernel warm-up {i}", None),
    (r"Running FlashInfer autotune with (?P<i>\d+)", "compiling kernels", "FlashInfer autotuning, {i} tokens", None),
    (r"Warming up done", "compiling kernels", "warmed up", None),
    (r"(Compile and w|W)arm(ing|ed) (up )?(?P<i>[^.:(]+)", "compiling kernels", "warming up {i}", None),
    # v1/worker/gpu/cudagraph_utils.py, spec_decode/target_dependent_ar/speculator.py, model_runner.py
    (r"Capturing (?P<what>[\w -]*)CUDA graphs.*?:" + _BAR, "capturing graphs", "{what}graph {i} of {n}", None),
    (r"Capturing model for (?P<i>.*speculator)", "capturing graphs", "{i}", None),
    (r"Graph capturing finished", "warming up", CAPTURED, None),
    # v1/engine/core.py, entrypoints/launchers/api_server/entry.py; uvicorn
    (r"init engine \(", "warming up", READY, None),
    (r"Starting vLLM server on", "warming up", "API server", None),
    (r"Application startup complete", "warming up", "API open", None),
)
_COMPILED = tuple((re.compile(pattern), phase, detail, cold) for pattern, phase, detail, cold in _PATTERNS)


def read(line: LogLine) -> StartupMark | None:
    """Return what a line of vLLM's log shows of the start; None for most lines."""
    for pattern, phase, detail, cold in _COMPILED:
        if match := pattern.match(line.text):
            groups = match.groupdict(default="")
            percent = groups.get("percent")
            return StartupMark(phase, float(percent) if percent else None, detail.format(**groups).strip(), cold)
    return None
