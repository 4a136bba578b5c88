"""
What the NVIDIA driver reports about this host's GPUs, through NVML (nvidia-ml-py): bytes, in PCI bus order.

A field is None where the driver does not answer: older drivers, virtual machines and consumer boards leave many out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ANCESTORS = {0: "same board", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
"""NVML's levels, as `nvidia-smi topo -m` writes them, nearest first."""
P2P = ("ok", "chipset", "gpu", "topology", "disabled by registry", "not supported", "unknown")
FABRIC = ("not supported", "not started", "in progress", "completed")
COMPUTE_MODES = ("default", "exclusive thread", "prohibited", "exclusive process")
MEMINFO = Path("/proc/meminfo")
RECOVERY = ("none", "reset", "reboot", "drain", "drain and reset", "recover IMEX", "bus reset", "reboot")


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds GPU memory; `used` is None where a container cannot know."""

    pid: int
    used: int | None


@dataclass(frozen=True)
class MigInstance:
    """A part of a GPU that MIG splits; memory in bytes."""

    uuid: str
    name: str
    """Its profile, such as `2g.20gb`."""
    total: int = 0


@dataclass(frozen=True)
class Gpu:
    """One GPU. Memory in bytes; PCIe width in lanes (not the link's speed, which drops when a GPU idles)."""

    index: int
    uuid: str = ""
    name: str = ""
    bus: str = ""
    capability: str = ""
    total: int = 0
    reserved: int = 0
    """The part of `total` that the driver reserves; CUDA sees the rest."""
    free: int = 0
    unified: bool = False
    """Whether CPU and GPU share one memory; `total` and `free` are the system's, as NVML has none for this GPU."""
    processes: tuple[GpuProcess, ...] = ()
    mig: bool | None = None
    instances: tuple[MigInstance, ...] = ()
    """The instances of a GPU in MIG mode that this process may use."""
    persistence: bool | None = None
    compute_mode: str | None = None
    fabric: str | None = None
    remap_failed: bool | None = None
    recovery: str | None = None
    uncorrected: int | None = None
    """Uncorrectable memory errors since the driver was loaded."""
    nvlinks: int | None = None
    """Active NVLinks; None where the GPU has none."""
    nvlinks_down: int | None = None
    width: int | None = None
    width_max: int | None = None
    error: str = ""
    """Why NVML could not read this GPU; empty when it could."""


@dataclass(frozen=True)
class Pair:
    """Two GPUs by index, `a` < `b`: their common ancestor, and what the driver reports about access between them."""

    a: int
    b: int
    ancestor: str = "SYS"
    nvlink: bool = False
    read: str = "unknown"
    write: str = "unknown"

    @property
    def peer_access(self) -> bool:
        """Whether the driver allows each GPU to read and write the other's memory."""
        return self.read == self.write == "ok"


@dataclass(frozen=True)
class Driver:
    """The driver's versions (CUDA as 13000 for 13.0), its GPUs and every pair of them; or why it does not answer."""

    version: str = ""
    cuda: int = 0
    gpus: tuple[Gpu, ...] = ()
    pairs: tuple[Pair, ...] = ()
    error: str = ""

    def gpu(self, index: int) -> Gpu:
        """Return the GPU with this index."""
        return next(gpu for gpu in self.gpus if gpu.index == index)


def read_driver(nvml: Any = None) -> Driver:
    """Ask NVML for everything once; `nvml` stands in for the module pynvml. Never raises: see `Driver.error`."""
    nvml = nvml or importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Driver(error=str(error))
    try:
        return _read(nvml)
    except nvml.NVMLError as error:
        return Driver(error=str(error))
    finally:
        nvml.nvmlShutdown()


def _read(nvml: Any) -> Driver:
    def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except nvml.NVMLError:
            return None

    handles: dict[int, Any] = {}
    gpus = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handles[index] = nvml.nvmlDeviceGetHandleByIndex(index)
            gpus.append(_gpu(nvml, ask, index, handles[index]))
        except nvml.NVMLError as error:  # lost, or in need of a reset
            handles.pop(index, None)
            gpus.append(Gpu(index, error=str(error)))
    pairs = tuple(_pair(nvml, ask, first, second) for first, second in combinations(handles.items(), 2))
    version = nvml.nvmlSystemGetDriverVersion()
    return Driver(version, ask(nvml.nvmlSystemGetCudaDriverVersion) or 0, tuple(gpus), pairs)


def _gpu(nvml: Any, ask: Callable[..., Any], index: int, handle: Any) -> Gpu:
    memory, unified = _memory(nvml, ask, handle)
    capability = ask(nvml.nvmlDeviceGetCudaComputeCapability, handle)
    running = ask(nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle) or ()
    mig = ask(nvml.nvmlDeviceGetMigMode, handle)
    persistence = ask(nvml.nvmlDeviceGetPersistenceMode, handle)
    remapped = ask(nvml.nvmlDeviceGetRemappedRows, handle)
    links = list(_links(nvml, ask, handle))
    return Gpu(
        index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        bus=_text(nvml.nvmlDeviceGetPciInfo(handle).busId),
        capability=".".join(map(str, capability)) if capability else "",
        total=memory.total,
        reserved=getattr(memory, "reserved", 0),
        free=memory.free,
        unified=unified,
        processes=tuple(GpuProcess(p.pid, p.usedGpuMemory) for p in running),
        mig=None if mig is None else mig[0] == 1,
        instances=tuple(_instances(nvml, ask, handle)) if mig and mig[0] == 1 else (),
        persistence=None if persistence is None else persistence == 1,
        compute_mode=_named(COMPUTE_MODES, ask(nvml.nvmlDeviceGetComputeMode, handle)),
        fabric=_fabric(nvml, ask, handle),
        remap_failed=None if remapped is None else bool(remapped[3]),
        recovery=recovery_action(nvml, ask, handle),
        uncorrected=ask(nvml.nvmlDeviceGetTotalEccErrors, handle, 1, 0),  # uncorrected, since the driver was loaded
        nvlinks=sum(links) if links else None,
        nvlinks_down=len(links) - sum(links) if links else None,
        width=ask(nvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
        width_max=ask(nvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
    )


def _memory(nvml: Any, ask: Callable[..., Any], handle: Any) -> tuple[Any, bool]:
    """Return a GPU's memory, and whether it is the system's: NVML has none for a GPU that shares it (GB10)."""
    if memory := ask(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2):
        return memory, False
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle), False
    except nvml.NVMLError as error:
        if str(error) != "Not Supported":
            raise
        return system_memory(MEMINFO.read_text(encoding="utf-8")), True


def system_memory(meminfo: str) -> SimpleNamespace:
    """Return the system's memory in bytes: all of it, and what vLLM 0.32.0 takes for free (utils/mem_utils.py)."""
    kib = {
        name: int(rest.split()[0])
        for name, colon, rest in (line.partition(":") for line in meminfo.splitlines())
        if colon
    }
    return SimpleNamespace(total=kib["MemTotal"] * 1024, free=kib["MemAvailable"] * 1024)


def _instances(nvml: Any, ask: Callable[..., Any], handle: Any) -> Iterator[MigInstance]:
    for index in range(ask(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        if (device := ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)) is None:  # there are fewer
            continue
        name, memory = ask(nvml.nvmlDeviceGetName, device) or "", ask(nvml.nvmlDeviceGetMemoryInfo, device)
        profile = name.rpartition(" MIG ")[2]  # NVIDIA H100 80GB HBM3 MIG 2g.20gb
        yield MigInstance(ask(nvml.nvmlDeviceGetUUID, device) or "", profile, memory.total if memory else 0)


def _links(nvml: Any, ask: Callable[..., Any], handle: Any) -> Iterator[bool]:
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        state = ask(nvml.nvmlDeviceGetNvLinkState, handle, link)
        if state is None:
            return
        yield state == 1


def _fabric(nvml: Any, ask: Callable[..., Any], handle: Any) -> str | None:
    from ctypes import byref

    info = nvml.c_nvmlGpuFabricInfoV_t()
    if ask(nvml.nvmlDeviceGetGpuFabricInfoV, handle, byref(info)) is None:
        return None
    return _named(FABRIC, info.state)


def recovery_action(nvml: Any, ask: Callable[..., Any], handle: Any) -> str | None:
    """Return what the driver asks to do with a GPU, one of RECOVERY; None where it does not answer."""
    values = ask(nvml.nvmlDeviceGetFieldValues, handle, [nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    if values is None or values[0].nvmlReturn:
        return None
    return _named(RECOVERY, values[0].value.uiVal)


def _pair(nvml: Any, ask: Callable[..., Any], first: tuple[int, Any], second: tuple[int, Any]) -> Pair:
    (a, near), (b, far) = first, second
    level = ask(nvml.nvmlDeviceGetTopologyCommonAncestor, near, far)
    # Numbers, because nvidia-ml-py 13.615.71 has a tuple in NVML_P2P_CAPS_INDEX_READ: read 0, write 1, NVLink 2.
    read, write, link = (_named(P2P, ask(nvml.nvmlDeviceGetP2PStatus, near, far, kind)) for kind in (0, 1, 2))
    return Pair(a, b, ANCESTORS.get(level, "SYS"), link == "ok", read or "unknown", write or "unknown")


def _named(names: tuple[str, ...], number: int | None) -> str | None:
    return None if number is None else names[number] if number < len(names) else f"{number}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
