"""Hosts by their GPUs, as NVML would tell of them."""

from __future__ import annotations

from itertools import combinations

from dsv4_serve.entrypoint.machine.machine import Machine
from dsv4_serve.entrypoint.machine.nvml import Driver, Gpu, Pair
from dsv4_serve.entrypoint.machine.topology import Topology
from dsv4_serve.entrypoint.machine.visible import VisibleGpus


def gpus(count: int, name: str, capability: str, gib: float, first: int = 0) -> list[Gpu]:
    """GPUs of one model, numbered from `first`."""
    size = round(gib * 2**30)
    return [Gpu(i, f"GPU-{i}", name, capability=capability, total=size, free=size) for i in range(first, first + count)]


def host(*gpus: Gpu, nvlink: bool = False) -> Machine:
    """A machine with these GPUs, connected by NVLink or by PCIe."""
    pairs = tuple(Pair(a.index, b.index, nvlink=nvlink) for a, b in combinations(gpus, 2))
    driver = Driver("580.173.02", gpus=gpus, pairs=pairs)
    visible = tuple(gpu.index for gpu in gpus)
    return Machine(driver, VisibleGpus(visible), Topology(visible, pairs))
