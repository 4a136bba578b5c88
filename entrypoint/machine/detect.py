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
    """There is no driver, or it shows this process no GPU."""


def hardware_of(machine: Machine, catalog: Catalog) -> HostGpus:
    """Return which hardware the visible GPUs are; raise ConfigError when there is none that the catalog knows."""
    names = gpu_names(machine)
    hardware = match(names, catalog.every_hardware())
    return HostGpus(hardware.name, f"NVML: {len(names)} x {names[0]}", len(names), machine.topology)


def gpu_names(machine: Machine) -> list[str]:
    """Return NVML's name of each visible GPU, in the order that CUDA counts them; raise NoGpu when there is none."""
    if machine.driver.error:
        raise NoGpu(f"No NVIDIA driver responds on this host (NVML: {machine.driver.error}); {_BY_NAME}.")
    names = [gpu.name for gpu in machine.gpus if not gpu.error]
    if names:
        return names
    if errors := [gpu.error for gpu in machine.gpus]:
        raise NoGpu(f"NVML could not read the GPUs ({errors[0]}); {_BY_NAME}.")
    raise NoGpu(f"The driver shows no GPU to this process; pass GPUs to the container, or {_BY_NAME}.")


def match(names: list[str], every: Iterable[ProfileFile[Hardware]]) -> ProfileFile[Hardware]:
    """Return the hardware whose `nvml-names` holds the one GPU model in `names`; raise ConfigError otherwise."""
    models = set(names)
    if len(models) > 1:
        raise ConfigError(
            f"This host has different GPUs ({listed(models)}); keep one kind (CUDA_VISIBLE_DEVICES), or {_BY_NAME}."
        )
    known = list(every)
    for hardware in known:
        if names[0] in hardware.own.nvml_names:
            return hardware
    raise ConfigError(
        f"No profile knows the GPU {names[0]!r}; {_BY_NAME}, one of {', '.join(hardware.name for hardware in known)}."
    )
