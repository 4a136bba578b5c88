"""
One rank of the timed all-reduce: `python -m …all_reduce.rank RANK RANKS BACKEND STORE LIMIT`.

It reports its progress on standard output, one JSON object a line: `{"step": …}`, and `{"bytes", "seconds"}` for
each size. It is started by probe.py, imports torch, and ends itself when nobody else does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from datetime import timedelta
from typing import Any

SIZES = tuple(1 << exponent for exponent in range(10, 27, 4))
"""1 KiB, 16 KiB, 256 KiB, 4 MiB, 64 MiB."""
REPEATS = 3


def main(arguments: list[str]) -> None:
    """Join, reduce each size, and report it. An error goes to standard error with its traceback; exit status 1."""
    try:
        measure(arguments)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # threads of an open group abort a process that ends in order, and their messages would hide ours


def measure(arguments: list[str]) -> None:
    """Do the work of `main`, and raise what went wrong."""
    rank, ranks, backend, store, limit = int(arguments[0]), int(arguments[1]), *arguments[2:4], int(arguments[4])
    signal.alarm(limit)  # ends this process even where it hangs inside a driver, and its parent is gone
    import torch
    import torch.distributed as dist

    report(step="init")
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend,
        init_method=f"file://{store}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=limit),
        device_id=device if backend == "nccl" else None,  # connects now, so that a hang is told from the first reduce's
    )
    report(step="first all-reduce")
    for size in SIZES:
        reduce(torch, dist, device, size, check=True)
        report(step=f"all-reduce of {size} bytes")
        times = [reduce(torch, dist, device, size) for _ in range(REPEATS)]
        report(bytes=size, seconds=sorted(times)[REPEATS // 2])
    report(step="done")
    dist.destroy_process_group()


def reduce(torch: Any, dist: Any, device: Any, size: int, *, check: bool = False) -> float:
    """All-reduce `size` bytes of float32, return the seconds; with `check`, raise ArithmeticError for a wrong sum."""
    pattern = torch.arange(size // 4, dtype=torch.float32, device=device) % 251
    data = contribution(pattern, dist.get_rank())
    synchronize(torch, device)
    began = time.perf_counter()
    dist.all_reduce(data)
    synchronize(torch, device)
    seconds = time.perf_counter() - began
    ranks = dist.get_world_size()
    if check and not torch.equal(data, pattern * (ranks * (ranks + 1) // 2)):  # exact: far below 2^24
        raise ArithmeticError(f"wrong sum: the all-reduce of {size} bytes changed its data")
    return seconds


def contribution(pattern: Any, rank: int) -> Any:
    """Return what a rank adds."""
    return pattern * (rank + 1)


def synchronize(torch: Any, device: Any) -> None:
    """Wait until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(**what: Any) -> None:
    """Report to the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
