"""A profile of a few decode steps, by torch's profiler in vLLM, summed up by kernel family."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from dsv4_serve.entrypoint.bench import load
from dsv4_serve.entrypoint.bench.load import Tokenizer
from dsv4_serve.entrypoint.bench.options import LoadShape
from dsv4_serve.entrypoint.client.local_replica import Started
from tools import kernel_time

STEPS = 20


def flags(folder: Path) -> list[str]:
    """Return the flags of vLLM that let it write traces to `folder`."""
    profiler = {"profiler": "torch", "torch_profiler_dir": str(folder), "torch_profiler_activities": ["CUDA"]}
    profiler |= {"torch_profiler_with_stack": False, "ignore_frontend": True}
    return ["--profiler-config", json.dumps(profiler)]


def steps(
    running: Started, batch: int, tokenizer: Tokenizer, environ: Mapping[str, str], folder: Path
) -> list[dict[str, Any]]:
    """Profile STEPS decode steps at one batch size; return what the kernels of rank 0 took, by family."""
    where, before = running.endpoint, set(folder.rglob("*.json.gz"))
    shape = LoadShape(batch, input=64, output=4 * STEPS, requests=batch, warm_up=0, seed=99)
    bounds = {"delay_iterations": STEPS, "max_iterations": STEPS}  # past the prefill
    httpx.post(f"{where.url}/start_profile", json=bounds, timeout=60, trust_env=False).raise_for_status()
    load.run(shape, where, where.models()[0].id, tokenizer, environ)
    httpx.post(f"{where.url}/stop_profile", timeout=240, trust_env=False).raise_for_status()
    fresh = sorted(set(folder.rglob("*.json.gz")) - before, key=lambda path: -path.stat().st_size)
    print(
        f"  traces at batch {batch}: {[f'{path.name} {path.stat().st_size >> 20} MiB' for path in fresh]}", flush=True
    )
    ranked = [path for path in fresh if "rank0" in path.name or "rank_0" in path.name or "rank-0" in path.name] or fresh
    found = kernel_time.by_family(kernel_time.read(ranked[0]))
    print(f"kernels at batch {batch}\n{kernel_time.table(found)}", flush=True)
    return [asdict(one) for one in found]
