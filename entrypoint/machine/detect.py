"""Which GPUs this host shows, through NVML (nvidia-ml-py); nothing is parsed from nvidia-smi."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..catalog.catalog import Catalog, Hardware, ProfileFile
from ..errors import ConfigError, listed
from ..resolve.select import Found
from .host import visible_gpus
from .nvml import Driver, read_driver
from .topology import read_topology

_BY_HAND = "choose by hand: --hardware NAME (HARDWARE=NAME)"


class NoGpu(ConfigError):
    """There is no driver, or it shows this process no GPU."""


def find(catalog: Catalog, environ: Mapping[str, str], nvml: Any = None) -> Found:
    """
    Return the hardware that NVML shows, how many GPUs CUDA_VISIBLE_DEVICES leaves of it, and how they are connected.

    Raise ConfigError when there is none that is known. `nvml` stands in for the module pynvml.
    """
    driver = read_driver(nvml)
    visible = visible_gpus(driver, environ.get("CUDA_VISIBLE_DEVICES")).indexes
    names = gpu_names(driver, visible)
    topology = read_topology(driver, visible)
    origin = f"NVML: {len(names)} x {names[0]}"
    return Found(match(names, catalog.every_hardware()).name, origin, len(names), topology)


def gpu_names(driver: Driver, visible: Iterable[int]) -> list[str]:
    """Return NVML's name of each visible GPU, in the order that CUDA counts them; raise NoGpu when there is none."""
    if driver.error:
        raise NoGpu(f"No NVIDIA driver answers on this host (NVML: {driver.error}); {_BY_HAND}.")
    gpus = [driver.gpu(index) for index in visible]
    names = [gpu.name for gpu in gpus if not gpu.error]
    if names:
        return names
    if errors := [gpu.error for gpu in gpus]:
        raise NoGpu(f"NVML could not read the GPUs ({errors[0]}); {_BY_HAND}.")
    raise NoGpu(f"The driver shows no GPU to this process; pass GPUs to the container, or {_BY_HAND}.")


def match(names: list[str], every: Iterable[ProfileFile[Hardware]]) -> ProfileFile[Hardware]:
    """Return the hardware whose `nvml-names` holds the one GPU model in `names`; raise ConfigError otherwise."""
    models = set(names)
    if len(models) > 1:
        raise ConfigError(
            f"This host shows different GPUs ({listed(models)}); keep one kind (CUDA_VISIBLE_DEVICES), or {_BY_HAND}."
        )
    known = list(every)
    for hardware in known:
        if names[0] in hardware.own.nvml_names:
            return hardware
    raise ConfigError(
        f"No profile knows the GPU {names[0]!r}; {_BY_HAND}, one of {', '.join(hardware.name for hardware in known)}."
    )
