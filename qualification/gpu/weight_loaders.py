"""
How fast vLLM's ways to read safetensors are on a host's disk, and what memory each takes.

    python -m qualification.gpu.weight_loaders FOLDER [--gb 79] [--device cuda] [--out FILE]

FOLDER gets shards of random bytes unless it holds some, and should lie on the disk in question. Each way runs in a
process of its own, once with the files dropped from the page cache and once with them in it. Each tensor is copied
once, as vLLM copies it into the model. `dsv4 weights prefetch` is one of the ways: it copies nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WAYS = ("lazy", "prefetch", "eager", "threads", "fastsafetensors", "dsv4-prefetch")
"""`auto` is `lazy`, unless the files lie on NFS or Lustre and fit into memory: then it is `prefetch`."""
SHARD_GB, TENSOR = 1.0, 16 << 20


def shards(folder: Path, gb: float) -> list[Path]:
    """Return the shards of a folder; write them where it has none."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (found := sorted(folder.glob("*.safetensors"))):
        import torch
        from safetensors.torch import save_file

        for number in range(max(1, round(gb / SHARD_GB))):
            rows = int(SHARD_GB * 1e9) // TENSOR
            tensors = {f"{number}.{row}": torch.randint(0, 255, (TENSOR,), dtype=torch.uint8) for row in range(rows)}
            save_file(tensors, folder / f"model-{number:05}.safetensors")
        found = sorted(folder.glob("*.safetensors"))
    return found


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


def measure(way: str, folder: Path, device: str, *, cached: bool) -> dict[str, Any]:
    """Run one way in a process of its own."""
    files = sorted(folder.glob("*.safetensors"))
    if cached:
        subprocess.run(["cat", *map(str, files)], stdout=subprocess.DEVNULL, check=True)
    else:
        drop(files)
    argv = [sys.executable, "-m", "qualification.gpu.weight_loaders", str(folder), "--one", way, "--device", device]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    row: dict[str, Any] = {"way": way, "from": "page cache" if cached else "disk"}
    if done.returncode:
        return {**row, "failed": done.stderr.strip().rpartition("\n")[2][:300]}
    found = json.loads(done.stdout.strip().rpartition("\n")[2])
    rate = round(found["bytes"] / found["seconds"] / 1e9, 3)
    return {**row, **found, "seconds": round(found["seconds"], 2), "gb_per_s": rate}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gb", type=float, default=4.0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--ways", nargs="*", default=WAYS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=WAYS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.folder, options.device)))
        return
    shards(options.folder, options.gb)
    rows = []
    for cached in (False, True):
        for way in options.ways:
            rows.append(measure(way, options.folder, options.device, cached=cached))
            print(json.dumps(rows[-1]), flush=True)
            if options.out:
                options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
