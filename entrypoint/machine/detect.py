"""Find out which hardware the visible GPUs are: the catalog's, by their name in NVML, or what NVML says of them."""

from __future__ import annotations

import dataclasses
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
    visible = readable_gpus(machine)
    gpus, left_out = _one_model(_whole(visible, catalog), chosen_already=machine.visible.variable is not None)
    split = [gpu for gpu in visible if gpu.mig]
    left_out += [f"GPU {_list(split)}, split by MIG"] if split else []
    gpu, count = gpus[0], len(gpus)
    indexes = tuple(gpu.index for gpu in gpus)
    found = _described(gpu, count, machine.topology.only(indexes), catalog)
    if not left_out:
        return found
    origin = f"{found.origin}; left out: {', '.join(left_out)}"
    return dataclasses.replace(found, origin=origin, only=indexes)


def _described(gpu: Gpu, count: int, topology: Topology, catalog: Catalog) -> HostGpus:
    """Return the hardware of GPUs of one model: the catalog's, with the memory that they have."""
    origin = f"NVML: {count} x {gpu.name}"
    known = match(gpu.name, catalog)
    if known is None:
        return _measured(gpu, count, topology, catalog)
    memory, own = usable_gib(gpu), known.get("memory_gib")
    if not memory or not own or memory >= _LESS * own:
        return HostGpus(known.name, origin, count, topology)
    origin += f" with {memory:.1f} GiB, not {own:g}"
    less = ProfileFile(known.name, known.file, known.own.model_copy(update={"memory_gib": memory}), known.parent)
    return HostGpus(known.name, origin, count, topology, less)


def topology_of(machine: Machine) -> Topology:
    """Return the topology of the visible GPUs that serve together: whole ones, of one model."""
    whole = [gpu for gpu in machine.gpus if not gpu.error and not gpu.mig]
    chosen = _best(whole) if whole else []
    return machine.topology.only(tuple(gpu.index for gpu in chosen))


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


def _whole(gpus: Sequence[Gpu], catalog: Catalog) -> list[Gpu]:
    """Return the GPUs that MIG does not split; raise ConfigError where it splits all of them."""
    if whole := [gpu for gpu in gpus if not gpu.mig]:
        return whole
    first = gpus[0]
    instances = [f"{one.name} with {one.total / (1 << 30):.1f} GiB" for one in first.instances]
    parts = f" into {', '.join(instances)}" if instances else ""
    least = min(size for model in catalog.every_model() if (size := model.get("weights_gib")))
    raise ConfigError(
        f"GPU {first.index} ({first.name}) is split by MIG{parts}. vLLM takes one instance a process, instances cannot"
        f" be joined by NCCL, and the smallest model has {least:g} GiB of weights; turn MIG off"
        f" (nvidia-smi -i {_list(gpus, ',')} -mig 0), or make whole GPUs visible."
    )


def _one_model(gpus: Sequence[Gpu], *, chosen_already: bool) -> tuple[list[Gpu], list[str]]:
    """
    Return the GPUs of the model that can serve with the most memory, and what is left out, in words.

    Raise ConfigError where CUDA_VISIBLE_DEVICES chose GPUs of several models, and say which of them to choose.
    """
    best, by_model = _best(gpus), _by_model(gpus)
    if len(by_model) > 1 and chosen_already:
        models = ", ".join(f"{len(group)} x {name}" for name, group in sorted(by_model.items()))
        raise ConfigError(
            f"CUDA_VISIBLE_DEVICES names GPUs of several models ({models}); name those of one, such as {len(best)} x"
            f" {best[0].name} with CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={_list(best, ',')}."
        )
    return best, [f"{len(group)} x {name}" for name, group in sorted(by_model.items()) if group != best]


def _best(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Return the GPUs of one model that have the most memory together, of those that can serve if there are any."""
    groups = _by_model(gpus).values()
    capable = [group for group in groups if not unsupported.by_capability(group[0].capability)]
    return max(capable or groups, key=lambda group: sum(gpu.total for gpu in group))


def _by_model(gpus: Sequence[Gpu]) -> dict[str, list[Gpu]]:
    by_model: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        by_model.setdefault(gpu.name, []).append(gpu)
    return by_model


def _list(gpus: Sequence[Gpu], separator: str = ", ") -> str:
    return separator.join(str(gpu.index) for gpu in gpus)


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
