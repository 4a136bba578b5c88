"""
One rank of the timed all-reduce: `python -m …all_reduce.rank RANK RANKS BACKEND STORE LIMIT`.

It reports its progress on standard output, one JSON object per line: `{"step": …}`, and `{"bytes", "seconds"}` for
each size. probe.py starts it; it imports torch, and an alarm ends it when nothing else does.
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
        os._exit(1)  # a normal exit with an open group makes its threads abort, and their messages would hide ours


def measure(arguments: list[str]) -> None:
    """Join the group and reduce each size; raise what goes wrong."""
    rank, ranks, backend, store, limit = int(arguments[0]), int(arguments[1]), *arguments[2:4], int(arguments[4])
    signal.alarm(limit)  # ends this process even if it hangs in a driver and its parent is gone
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
        device_id=device
        if backend == "nccl"
        else None,  # connects now, so that a hang here differs from one in the first reduce
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
    """Return the data that a rank contributes."""
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
