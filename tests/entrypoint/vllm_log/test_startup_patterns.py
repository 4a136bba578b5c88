"""Every pattern of a start's log has an example, in the patterns' order, and says what it stands for."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.vllm_log import startup_patterns
from dsv4_serve.entrypoint.vllm_log.parser import LogLine
from dsv4_serve.entrypoint.vllm_log.startup_patterns import StartupMark, read

WORKER = "(Worker_TP0 pid=1) INFO 11-22 04:12:25 [x.py:1] "
STARTING, CONNECTING, LOADING, COMPILING, PROFILING, CAPTURING, WARMING = (
    "starting",
    "connecting ranks",
    "loading weights",
    "compiling kernels",
    "profiling",
    "capturing graphs",
    "warming up",
)
EXAMPLES: list[tuple[str, StartupMark]] = [
    ("non-default args: {'port': 8000}", StartupMark(STARTING, None, "arguments read")),
    ("Resolved architecture: LlamaForCausalLM", StartupMark(STARTING, None, "architecture LlamaForCausalLM")),
    ("Initializing a V1 LLM engine (v0.32.0) with config:", StartupMark(STARTING, None, "engine core")),
    ("world_size=2 rank=1 local_rank=1", StartupMark(STARTING, None, "rank 1 of 2")),
    ("vLLM is using nccl==2.29.7", StartupMark(CONNECTING, None, "NCCL 2.29.7")),
    (
        "Using ['PYNCCL'] all-reduce backends (in dispatch order) for group 'tp:0' out of potential backends:",
        StartupMark(CONNECTING, None, "group tp:0"),
    ),
    (
        "rank 0 in world size 2 is assigned as DP rank 0, PP rank 0",
        StartupMark(LOADING, None, "building the model"),
    ),
    ("Starting to load model m...", StartupMark(LOADING, None, "building the model")),
    ("Initializing model took 0.011968 seconds", StartupMark(LOADING, None, "model built")),
    ("Prefetching checkpoint files: 40% (14/35)", StartupMark(LOADING, None, "prefetching, 40 %")),
    (
        "Loading fastsafetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.06s/it]",
        StartupMark(LOADING, 50.0, "shard 1 of 2"),
    ),
    (
        "Multi-thread loading shards:  25% Completed | 1/4 [00:31<00:00]",
        StartupMark(LOADING, 25.0, "shard 1 of 4"),
    ),
    ("MTP draft model loaded: 39 params", StartupMark(LOADING, None, "draft head of 39 parameters")),
    ("Loading weights took 1.43 seconds", StartupMark(LOADING, None, "preparing the weights")),
    ("Model loading took 1.64 GiB memory", StartupMark(COMPILING, None, "first pass of the model")),
    (
        "(kernel.py:129): TileLang begins to compile kernel `mhc_post` with `out_idx=None`",
        StartupMark(COMPILING, None, "TileLang mhc_post", cold=True),
    ),
    (
        "(kernel.py:140): TileLang completes to compile kernel `mhc_post`",
        StartupMark(COMPILING, None, "TileLang mhc_post done", cold=True),
    ),
    (
        "- core.py:564 - flashinfer.jit: Building JIT module fused_moe_90; this can",
        StartupMark(COMPILING, None, "FlashInfer fused_moe_90", cold=True),
    ),
    (
        "- autotuner.py:1 - flashinfer.jit: [Autotuner]: Autotuning process starts ...",
        StartupMark(COMPILING, None, "FlashInfer: Autotuning process starts"),
    ),
    (
        "[AutoTuner]: Tuning sparse_mla_decode:  44%|####4     | 4/9 [00:02<00:02,  1.91it/s]",
        StartupMark(COMPILING, None, "FlashInfer: tuning sparse_mla_decode, 4 of 9"),
    ),
    ("[backbone] Starting torch.compile", StartupMark(COMPILING, None, "torch.compile")),
    ("Dynamo bytecode transform time: 3.20 s", StartupMark(COMPILING, None, "torch.compile, after Dynamo")),
    (
        "[backbone] Cache the graph of compile range (1, 2048) for later use",
        StartupMark(COMPILING, None, "torch.compile (1, 2048)", cold=True),
    ),
    (
        "Compiling a graph for compile range (1, 2048) takes 2.10 s",
        StartupMark(COMPILING, None, "graph (1, 2048)", cold=True),
    ),
    (
        "[backbone] saved AOT compiled function to /var/cache/vllm/x",
        StartupMark(COMPILING, None, "torch.compile saved", cold=True),
    ),
    (
        "Directly load AOT compilation from path /var/cache/vllm/x",
        StartupMark(COMPILING, None, "torch.compile, from its cache", cold=False),
    ),
    (
        "Directly load the compiled graph(s) for compile range (1, 2048) from the cache",
        StartupMark(COMPILING, None, "torch.compile, from its cache", cold=False),
    ),
    ("torch.compile took 12.3 s in total", StartupMark(COMPILING, None, "torch.compile done")),
    ("Profiling CUDA graph memory: PIECEWISE=5", StartupMark(PROFILING, None, "CUDA graph memory")),
    ("Memory profiling takes 3.00 seconds.", StartupMark(PROFILING, None, "free memory measured")),
    ("Available KV cache memory: 30.17 GiB", StartupMark(PROFILING, None, "30.17 GiB for the KV cache")),
    ("GPU KV cache size: 78,607 tokens", StartupMark(PROFILING, None, "KV cache of 78,607 tokens")),
    (
        "DeepGEMM warmup:  45%|████▍     | 355/790 [01:02<01:16,  5.72it/s]",
        StartupMark(COMPILING, None, "DeepGEMM shape 355 of 790"),
    ),
    (
        "JIT kernel warmup (212 compile keys):  10%|█         | 2/20 [00:02<00:20, K (3 keys)]",
        StartupMark(COMPILING, None, "JIT kernel 2 of 20"),
    ),
    (
        "Compiling CuTeDSL kernels:  10%|█         | 2/20 [00:02<00:20]",
        StartupMark(COMPILING, None, "CuTeDSL kernel 2 of 20"),
    ),
    ("JIT kernel warmup finished in 3 s", StartupMark(COMPILING, None, "JIT kernel warm-up finished")),
    (
        "Running FlashInfer autotune with 1024 tokens and token buckets (1, 2).",
        StartupMark(COMPILING, None, "FlashInfer autotuning, 1024 tokens"),
    ),
    ("Warming up done.", StartupMark(COMPILING, None, "warmed up")),
    ("Compile and warming up model for size 8", StartupMark(COMPILING, None, "warming up model for size 8")),
    (
        "Capturing decode CUDA graphs (FULL):  40%|████      | 2/5 [00:01<00:01]",
        StartupMark(CAPTURING, None, "decode graph 2 of 5"),
    ),
    ("Capturing model for MTP speculator...", StartupMark(CAPTURING, None, "MTP speculator")),
    ("Graph capturing finished in 3 secs, took 0.20 GiB", StartupMark(WARMING, None, "graphs captured")),
    ("init engine (profile, create kv cache, warmup model) took 9 s", StartupMark(WARMING, None, "engine ready")),
    ("Starting vLLM server on http://0.0.0.0:8100", StartupMark(WARMING, None, "API server")),
    ("Application startup complete.", StartupMark(WARMING, None, "API open")),
]


@pytest.mark.parametrize(("text", "mark"), EXAMPLES)
def test_a_line_says_where_the_start_is(text: str, mark: StartupMark) -> None:
    assert read(LogLine.parse(text)) == mark
    assert read(LogLine.parse(WORKER + text)) == mark


def test_every_pattern_has_its_example() -> None:
    patterns = [pattern for pattern, *_ in startup_patterns._COMPILED]
    first = [next(n for n, pattern in enumerate(patterns) if pattern.match(text)) for text, _ in EXAMPLES]
    assert first == list(range(len(patterns)))
