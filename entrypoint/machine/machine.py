"""What this machine has, regardless of the plan: read once per command, and passed on as data."""

from __future__ import annotations

import dataclasses
import os
import platform
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..catalog import unsupported
from .nvml import Driver, Gpu, read_driver
from .topology import Topology, read_topology
from .visible import VisibleGpus, visible_gpus

SHM = Path("/dev/shm")  # noqa: S108  the mount that NCCL and vLLM use
_MODULE = Path("/proc/driver/nvidia/version")
_DEVICE = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class ResourceLimits:
    """Resource limits, bytes or files; -1 is no limit. `files` is the hard limit: vLLM raises the soft one itself."""

    memlock: int = -1
    stack: int = -1
    files: int = -1


@dataclass(frozen=True)
class Machine:
    """The GPUs, the topology of the visible ones, and the limits of this container. Sizes are in bytes."""

    driver: Driver = field(default_factory=Driver)
    visible: VisibleGpus = field(default_factory=VisibleGpus)
    topology: Topology = field(default_factory=Topology)
    """Of the visible GPUs that NVML can read."""
    kernel_module: str = ""
    """The version of the loaded kernel module; empty when none is loaded, or the container hides it."""
    device_nodes: bool = True
    shm_free: int | None = None
    shm_writable: bool = True
    limits: ResourceLimits = ResourceLimits()
    cpu: str = ""
    cores: int = 0
    """CPU cores that this process may use."""
    avx512_bf16: bool = True
    other: str = ""
    """The message about another maker's accelerator in this host; empty when there is none."""

    @property
    def gpus(self) -> list[Gpu]:
        """The visible GPUs, in the order in which CUDA counts them."""
        return [self.driver.gpu(index) for index in self.visible.indexes]

    def seen_with(self, environ: Mapping[str, str]) -> Machine:
        """Return the machine as a process with these variables sees it."""
        visible = visible_gpus(self.driver, environ.get("CUDA_VISIBLE_DEVICES"))
        return dataclasses.replace(self, visible=visible, topology=self.topology.only(visible.indexes))


def read_machine(environ: Mapping[str, str], nvml: Any = None) -> Machine:
    """Read everything without starting a process; `nvml` stands in for the module pynvml. Never raises."""
    driver = read_driver(nvml)
    visible = visible_gpus(driver, environ.get("CUDA_VISIBLE_DEVICES"))
    cpuinfo = _text(Path("/proc/cpuinfo"))
    return Machine(
        driver=driver,
        visible=visible,
        topology=read_topology(driver, visible.indexes),
        kernel_module=_module_version(_text(_MODULE)),
        device_nodes=_DEVICE.exists(),
        shm_free=shutil.disk_usage(SHM).free if SHM.is_dir() else 0,
        shm_writable=os.access(SHM, os.W_OK | os.X_OK) if SHM.is_dir() else True,
        limits=read_limits(),
        cpu=_cpu_model(cpuinfo),
        cores=len(os.sched_getaffinity(0)),
        avx512_bf16="avx512_bf16" in cpuinfo,
        other=next((message for node, message in unsupported.DEVICES.items() if Path(node).exists()), ""),
    )


def read_limits() -> ResourceLimits:
    """Return this process's limits, which vLLM inherits."""
    return ResourceLimits(
        resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        resource.getrlimit(resource.RLIMIT_STACK)[0],
        resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _module_version(text: str) -> str:
    """Return 580.159.04 from `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build`."""
    first, *_ = text.splitlines() or [""]
    return next((part for part in first.split() if part[:1].isdigit() and "." in part), "")


def _cpu_model(cpuinfo: str) -> str:
    names = (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
