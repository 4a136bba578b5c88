"""Match the visible GPUs to hardware in the catalog, by their names in NVML."""

from __future__ import annotations

from collections.abc import Iterable

from ..catalog.catalog import Catalog, ProfileFile
from ..catalog.schema import Hardware
from ..errors import ConfigError, listed
from .gpus import HostGpus
from .machine import Machine

_BY_NAME = "name the hardware: --hardware NAME (HARDWARE=NAME)"


class NoGpu(ConfigError):
    """No NVIDIA driver responds, or no GPU is visible to this process."""


def hardware_of(machine: Machine, catalog: Catalog) -> HostGpus:
    """Return the hardware of the visible GPUs; raise ConfigError when no profile in the catalog matches them."""
    names = gpu_names(machine)
    hardware = match(names, catalog.every_hardware())
    return HostGpus(hardware.name, f"NVML: {len(names)} x {names[0]}", len(names), machine.topology)


def gpu_names(machine: Machine) -> list[str]:
    """Return NVML's name of each visible GPU, in the order that CUDA counts them; raise NoGpu when there is none."""
    if machine.driver.error:
        raise NoGpu(
            f"No NVIDIA driver responds on this host (NVML: {machine.driver.error}); install it, or {_BY_NAME}."
        )
    names = [gpu.name for gpu in machine.gpus if not gpu.error]
    if names:
        return names
    if errors := [gpu.error for gpu in machine.gpus]:
        raise NoGpu(f"NVML could not read the GPUs ({errors[0]}); {_BY_NAME}.")
    raise NoGpu(
        f"No GPU is visible to this process; pass GPUs to the container (docker run --gpus all), or {_BY_NAME}."
    )


def match(names: list[str], every: Iterable[ProfileFile[Hardware]]) -> ProfileFile[Hardware]:
    """Return the hardware whose `nvml-names` holds the one GPU model in `names`; raise ConfigError otherwise."""
    models = set(names)
    if len(models) > 1:
        raise ConfigError(
            f"This host has GPUs of several models ({listed(models)}); select one model with CUDA_VISIBLE_DEVICES,"
            f" or {_BY_NAME}."
        )
    known = list(every)
    for hardware in known:
        if names[0] in hardware.own.nvml_names:
            return hardware
    raise ConfigError(
        f"No hardware profile matches the GPU {names[0]!r}; {_BY_NAME},"
        f" one of {', '.join(hardware.name for hardware in known)}."
    )
