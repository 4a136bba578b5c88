"""
The bandwidth of a GPU's memory, measured: reading (a sum), and copying, which reads and writes.

    python -m qualification.gpu.copy_bandwidth
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch

GIB, ROUNDS = 8, 20


def best(work: Callable[[], object], size: int) -> float:
    """TB/s of the fastest of ROUNDS."""
    times = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return round(size / min(times) / 1e12, 3)


def main() -> None:
    source = torch.ones(GIB << 28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    size = source.numel() * 4
    print(
        json.dumps(
            {
                "gpu": torch.cuda.get_device_name(),
                "read_tb_per_s": best(source.sum, size),
                "copy_tb_per_s": best(lambda: target.copy_(source), 2 * size),
            }
        )
    )


if __name__ == "__main__":
    main()
