"""Find out which hardware the visible GPUs are: the catalog's, by their name in NVML, or what NVML says of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..catalog import unsupported
from ..catalog.catalog import Catalog, ProfileFile
from ..catalog.schema import Hardware
from ..errors import ConfigError
from .gpus import HostGpus
from .machine import Machine
from .nvml import Gpu
from .topology import Topology

_BY_NAME = "name the hardware: --hardware NAME (HARDWARE=NAME)"
_LESS = 0.99
"""A GPU with less than this share of its file's memory is another variant of it."""


class NoGpu(ConfigError):
    """No NVIDIA driver responds, or no GPU is visible to this process."""


def hardware_of(machine: Machine, catalog: Catalog) -> HostGpus:
    """Return the hardware of the visible GPUs; raise ConfigError where they cannot serve."""
    gpus = readable_gpus(machine)
    gpu, count = _one_model(gpus), len(gpus)
    origin = f"NVML: {count} x {gpu.name}"
    known = match(gpu.name, catalog)
    if known is None:
        return _measured(gpu, count, machine.topology, catalog)
    memory, own = usable_gib(gpu), known.get("memory_gib")
    if not memory or not own or memory >= _LESS * own:
        return HostGpus(known.name, origin, count, machine.topology)
    origin += f" with {memory:.1f} GiB, not {own:g}"
    less = ProfileFile(known.name, known.file, known.own.model_copy(update={"memory_gib": memory}), known.parent)
    return HostGpus(known.name, origin, count, machine.topology, less)


def readable_gpus(machine: Machine) -> list[Gpu]:
    """Return each visible GPU, in the order that CUDA counts them; raise NoGpu when there is none."""
    if machine.driver.error:
        if machine.other:
            raise NoGpu(f"No NVIDIA driver responds (NVML: {machine.driver.error}), and {machine.other}.")
        raise NoGpu(
            f"No NVIDIA driver responds on this host (NVML: {machine.driver.error}); install it, or {_BY_NAME}."
        )
    if gpus := [gpu for gpu in machine.gpus if not gpu.error]:
        return gpus
    if errors := [gpu.error for gpu in machine.gpus]:
        raise NoGpu(f"NVML could not read the GPUs ({errors[0]}); {_BY_NAME}.")
    raise NoGpu(
        f"No GPU is visible to this process; pass GPUs to the container (docker run --gpus all), or {_BY_NAME}."
    )


def match(name: str, catalog: Catalog) -> ProfileFile[Hardware] | None:
    """Return the hardware whose `nvml-names` has a GPU's name, or None."""
    return next((hardware for hardware in catalog.every_hardware() if name in hardware.own.nvml_names), None)


def usable_gib(gpu: Gpu) -> float:
    """Return the memory that CUDA sees, in GiB: all but what the driver reserves."""
    return round((gpu.total - gpu.reserved) / (1 << 30), 2)


def _one_model(gpus: Sequence[Gpu]) -> Gpu:
    """Return the first GPU; raise ConfigError for GPUs of several models, and say how to select the most memory."""
    by_model: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        by_model.setdefault(gpu.name, []).append(gpu)
    if len(by_model) == 1:
        return gpus[0]
    capable = [group for group in by_model.values() if not unsupported.by_capability(group[0].capability)]
    best = max(capable or by_model.values(), key=lambda group: sum(gpu.total for gpu in group))
    indexes = ",".join(str(gpu.index) for gpu in best)
    models = ", ".join(f"{len(group)} x {name}" for name, group in sorted(by_model.items()))
    raise ConfigError(
        f"This host has GPUs of several models ({models}); serve on one of them, such as {len(best)} x {best[0].name}"
        f" with CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={indexes}."
    )


def _measured(gpu: Gpu, count: int, topology: Topology, catalog: Catalog) -> HostGpus:
    """Describe a GPU that no file describes by what NVML says of it; raise ConfigError if it cannot serve."""
    if reason := unsupported.by_capability(gpu.capability):
        raise ConfigError(f"{gpu.name} cannot serve DeepSeek-V4 here: {reason}.")
    if not gpu.capability:
        raise ConfigError(
            f"NVML does not tell the compute capability of {gpu.name}, and no hardware file has its name; update the"
            " driver, or write a file (docs/how-to/own-hardware.md)."
        )
    name = re.sub("[^a-z0-9]+", "-", gpu.name.lower().removeprefix("nvidia ")).strip("-")
    nvlink = topology.nvlinked(topology.gpus) if len(topology.gpus) > 1 else bool(gpu.nvlinks)
    own = Hardware.model_validate(
        {
            "about": f"{gpu.name}, as NVML describes it; no one has measured this",
            "nvml-names": [gpu.name],
            "compute-capability": gpu.capability,
            "interconnect": "nvlink" if nvlink else "pcie",
            **({"memory-gib": usable_gib(gpu)} if gpu.total else {}),
        }
    )
    parent = catalog.architecture(gpu.capability)
    origin = (
        f"NVML: {count} x {gpu.name}, SM {gpu.capability}; no one has measured this: it gets the safe settings of"
        f" {parent.file}"
    )
    return HostGpus(name, origin, count, topology, ProfileFile(name, "NVML", own, parent))
