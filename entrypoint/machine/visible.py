"""Which GPUs CUDA_VISIBLE_DEVICES makes visible to a process."""

from __future__ import annotations

from dataclasses import dataclass

from .nvml import Driver, Gpu


@dataclass(frozen=True)
class VisibleGpus:
    """The visible GPUs by NVML's index, and the first name in CUDA_VISIBLE_DEVICES that matches no GPU."""

    indexes: tuple[int, ...] = ()
    unknown: str = ""
    variable: str | None = None
    """The value of CUDA_VISIBLE_DEVICES; None where it is not set."""


def visible_gpus(driver: Driver, variable: str | None) -> VisibleGpus:
    """
    Read CUDA_VISIBLE_DEVICES as CUDA does: indexes or UUID prefixes, up to the first that matches no GPU.

    A GPU is also visible by the UUID of one of its MIG instances.
    """
    if variable is None:
        return VisibleGpus(tuple(gpu.index for gpu in driver.gpus))
    indexes: list[int] = []
    for part in map(str.strip, variable.split(",")):
        matching = [gpu.index for gpu in driver.gpus if _is(gpu, part)]
        if not matching:
            return VisibleGpus(tuple(indexes), part, variable)
        indexes += matching[:1]
    return VisibleGpus(tuple(indexes), variable=variable)


def _is(gpu: Gpu, part: str) -> bool:
    uuids = (gpu.uuid, *(instance.uuid for instance in gpu.instances))
    return part == str(gpu.index) or (len(part) > 4 and any(uuid.startswith(part) for uuid in uuids))
