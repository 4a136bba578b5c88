"""
How fast vLLM's ways to read safetensors are on a host's disk, and what memory each takes.

    python -m qualification.gpu.weight_loaders FOLDER [--gb 79] [--device cuda] [--out FILE] [--deadline 500]

FOLDER gets shards of random bytes unless it holds some, and should lie on the disk in question, or in /dev/shm. Each way
runs in a process of its own, once with the files dropped from the page cache and once with them in it; files in memory
are read once. Each tensor is copied once, as vLLM copies it into the model. `dsv4 weights prefetch` is one of the ways:
it copies nothing. What the deadline leaves no time for is left out, and what it cuts is kept as cut.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

WAYS = ("lazy", "fastsafetensors", "instanttensor", "threads", "prefetch", "eager", "dsv4-prefetch")
"""`auto` is `lazy`, unless the files lie on NFS or Lustre and fit into memory: then it is `prefetch`."""
SHARD_GB, TENSOR = 1.0, 16 << 20
WRITERS = 8
LEAST, LONGEST = 5, 150
"""Seconds without which no way begins, and after which it is cut."""


def shards(folder: Path, gb: float) -> list[Path]:
    """Return the shards of a folder; write them where it has none."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (found := sorted(folder.glob("*.safetensors"))):
        found = [folder / f"model-{number:05}.safetensors" for number in range(max(1, round(gb / SHARD_GB)))]
        with get_context("spawn").Pool(min(WRITERS, len(found), os.cpu_count() or 1)) as writers:
            writers.map(shard, found, chunksize=1)
    return found


def shard(file: Path) -> None:
    """Write one shard of random bytes; all its tensors have the same ones."""
    import torch
    from safetensors.torch import save_file

    content = torch.randint(0, 255, (TENSOR,), dtype=torch.uint8)
    save_file({f"{file.stem}.{row}": content.clone() for row in range(int(SHARD_GB * 1e9) // TENSOR)}, file)


def in_memory(folder: Path) -> bool:
    """Tell whether a folder lies on a file system in memory."""
    found = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False).stdout
    return found.strip() in ("tmpfs", "ramfs")


def drop(files: list[Path]) -> None:
    """Write files to the disk and drop them from the page cache."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def tensors(way: str, files: list[str], device: str) -> Iterator[Any]:
    """Yield every tensor as vLLM gets it."""
    from vllm.model_executor.model_loader import weight_utils

    if way == "threads":
        found = weight_utils.multi_thread_safetensors_weights_iterator(files, use_tqdm_on_load=False)
    elif way == "instanttensor":
        found = weight_utils.instanttensor_weights_iterator(files, use_tqdm_on_load=False)
    elif way == "fastsafetensors" and device == "cuda":
        found = weight_utils.fastsafetensors_weights_iterator(files, use_tqdm_on_load=False)
    elif way == "fastsafetensors":
        fast = importlib.import_module("fastsafetensors")
        parallel = importlib.import_module("fastsafetensors.parallel_loader")
        loader = parallel.ParallelLoader(fast.SingleGroup(), files, use_tqdm_on_load=False, device="cpu", nogds=True)
        found = loader.iterate_weights()
    else:
        found = weight_utils.safetensors_weights_iterator(files, False, way)
    return (tensor for _, tensor in found)


def one(way: str, folder: Path, device: str) -> dict[str, Any]:
    """Read everything once in this process."""
    files = sorted(folder.glob("*.safetensors"))
    if way == "dsv4-prefetch":
        from dsv4_serve.entrypoint.weights import prefetch

        began = time.perf_counter()
        size = prefetch.prefetch(folder, prefetch.available()).bytes
        return {"seconds": time.perf_counter() - began, "bytes": size, "peak_mib": _peak()}
    import torch

    target = torch.empty(TENSOR, dtype=torch.uint8, device=device)
    source = tensors(way, [str(file) for file in files], device)
    before, began, size = _peak(), time.perf_counter(), 0
    for tensor in source:
        target.copy_(tensor)
        size += tensor.numel()
    if device == "cuda":
        torch.cuda.synchronize()
    return {"seconds": time.perf_counter() - began, "bytes": size, "peak_mib": _peak() - before}


def _peak() -> int:
    """Return the most MiB that this process had; getrusage would also count what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) >> 10


def measure(way: str, folder: Path, device: str, where: str, seconds: float) -> dict[str, Any]:
    """Run one way in a process of its own, for so many seconds at most."""
    argv = [sys.executable, "-m", "qualification.gpu.weight_loaders", str(folder), "--one", way, "--device", device]
    row: dict[str, Any] = {"way": way, "from": where}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {**row, "cut": round(seconds)}
    if done.returncode:
        return {**row, "failed": done.stderr.strip().rpartition("\n")[2][:300]}
    found = json.loads(done.stdout.strip().rpartition("\n")[2])
    rate = round(found["bytes"] / found["seconds"] / 1e9, 3)
    return {**row, **found, "seconds": round(found["seconds"], 2), "gb_per_s": rate}


def rows(ways: Sequence[str], folder: Path, device: str, until: float) -> Iterator[dict[str, Any]]:
    """Yield what each way takes from the disk, and then from the page cache."""
    files, memory = sorted(folder.glob("*.safetensors")), in_memory(folder)
    for where in ("memory",) if memory else ("disk", "page cache"):
        if where == "page cache":
            subprocess.run(["cat", *map(str, files)], stdout=subprocess.DEVNULL, check=True)
        for way in ways:
            if memory and way == "dsv4-prefetch":
                continue
            if where == "disk":
                drop(files)
            if (left := until - time.monotonic()) < LEAST:
                return
            yield measure(way, folder, device, where, min(left, LONGEST))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gb", type=float, default=4.0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--ways", nargs="*", default=WAYS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--deadline", type=float, default=3600, help="seconds for everything")
    parser.add_argument("--one", choices=WAYS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.folder, options.device)))
        return
    until = time.monotonic() + options.deadline
    written = len(shards(options.folder, options.gb))
    print(f"{written} shards after {options.deadline - until + time.monotonic():.0f} s", flush=True)
    found = []
    for row in rows(options.ways, options.folder, options.device, until):
        found.append(row)
        print(json.dumps(row), flush=True)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
