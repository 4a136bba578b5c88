"""A profile of a few decode steps or of one prompt, by torch's profiler in vLLM or SGLang, summed up by kernel family."""

from __future__ import annotations

import asyncio
import json
import re
import time
import zlib
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from dsv4_serve.entrypoint.bench import event_loop, load
from dsv4_serve.entrypoint.bench.load import Tokenizer
from dsv4_serve.entrypoint.bench.options import LoadShape
from dsv4_serve.entrypoint.client.local_replica import Started
from qualification.gpu import decoding
from tools import kernel_time

STEPS = 20
CHUNK = 8192
"""Tokens of a prompt that SGLang reads in a step on a GPU with the memory of an H200 (`chunked_prefill_size`)."""
WRITING = 60.0
"""Seconds for SGLang to write a trace."""
FIRST = re.compile(r"rank[_-]?0|TP-0")


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
    return summed(f"batch {batch}", set(folder.rglob("*.json.gz")) - before)


def prompt(
    running: Started, tokens: int, tokenizer: Tokenizer, environ: Mapping[str, str], folder: Path
) -> list[dict[str, Any]]:
    """Profile all steps that read one prompt of so many tokens; return what the kernels of rank 0 took, by family."""
    where, before = running.endpoint, set(folder.rglob("*.json.gz"))
    httpx.post(f"{where.url}/start_profile", json={}, timeout=60, trust_env=False).raise_for_status()
    load.run(reading(tokens, output=1), where, where.models()[0].id, tokenizer, environ)
    httpx.post(f"{where.url}/stop_profile", timeout=240, trust_env=False).raise_for_status()
    return summed(f"a prompt of {tokens}", set(folder.rglob("*.json.gz")) - before)


def prompt_of_sglang(
    running: Started, tokens: int, tokenizer: Tokenizer, environ: Mapping[str, str], folder: Path
) -> list[dict[str, Any]]:
    """Do the same with SGLang, which ends its profile when it begins the step after the last of the prompt."""
    where = running.endpoint
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.rglob("*.json.gz"))
    _ask_sglang(where.url, folder, -(-tokens // CHUNK))
    load.run(reading(tokens, output=STEPS), where, where.models()[0].id, tokenizer, environ)
    return summed(f"a prompt of {tokens}", written(folder, before))


def reading(tokens: int, output: int) -> LoadShape:
    """Return the load of one prompt that no prefix cache holds."""
    return LoadShape(batch=1, input=tokens, output=output, requests=1, warm_up=0, seed=98)


def steps_of_sglang(
    running: Started, batch: int, _tokenizer: Tokenizer, _environ: Mapping[str, str], folder: Path
) -> list[dict[str, Any]]:
    """Do the same with SGLang, whose profiler counts steps from when it is asked: so ask while all requests decode."""
    return summed(f"batch {batch}", event_loop.run(_steps(running, batch, folder)))


async def _steps(running: Started, batch: int, folder: Path) -> set[Path]:
    where = running.endpoint
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.rglob("*.json.gz"))
    async with decoding.requests(where.url, where.models()[0].id, batch):
        await asyncio.to_thread(_ask_sglang, where.url, folder, STEPS)
        return await asyncio.to_thread(written, folder, before)


def _ask_sglang(url: str, folder: Path, steps: int) -> None:
    """Ask for a profile of the next steps; the last step ends it."""
    body = {"output_dir": str(folder), "num_steps": steps, "activities": ["GPU"], "with_stack": False}
    httpx.post(f"{url}/start_profile", json=body, timeout=60, trust_env=False).raise_for_status()


def written(folder: Path, before: Collection[Path]) -> set[Path]:
    """Wait until the first rank's new trace is whole, and return the new ones."""
    until = time.monotonic() + WRITING
    while not any(FIRST.search(path.name) and whole(path) for path in set(folder.rglob("*.json.gz")) - set(before)):
        if time.monotonic() > until:
            raise FileNotFoundError(f"no trace in {folder} after {WRITING:.0f} s")
        time.sleep(0.5)
    return set(folder.rglob("*.json.gz")) - set(before)


def whole(path: Path) -> bool:
    """Tell whether a trace is written to its end."""
    try:
        kernel_time.read(path)
    except (OSError, EOFError, ValueError, zlib.error):
        return False
    return True


def summed(what: str, traces: Collection[Path]) -> list[dict[str, Any]]:
    """Print what the kernels of the first rank took, by family, and return it."""
    fresh = sorted(traces, key=lambda path: -path.stat().st_size)
    print(f"  traces at {what}: {[f'{path.name} {path.stat().st_size >> 20} MiB' for path in fresh]}", flush=True)
    ranked = [path for path in fresh if FIRST.search(path.name)] or fresh
    found = kernel_time.by_family(kernel_time.read(ranked[0]))
    print(f"kernels at {what}\n{kernel_time.table(found)}", flush=True)
    return [asdict(one) for one in found]


PROFILERS = {
    ("trace", False): steps, ("trace", True): steps_of_sglang,
    ("prompt_trace", False): prompt, ("prompt_trace", True): prompt_of_sglang,
}  # fmt: skip
"""By the kind of a variant's setting, and whether the engine is SGLang."""
