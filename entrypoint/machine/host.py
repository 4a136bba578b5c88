"""What this host and this container give a vLLM: facts, read without starting anything. Bytes."""

from __future__ import annotations

import os
import pwd
import resource
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import build_tools
from .nvml import Driver, read_driver
from .ports import Port, look
from .requirements import Asked

SHM = Path("/dev/shm")  # noqa: S108  the mount that NCCL and vLLM use

# Where what vLLM starts keeps compiled kernels and weights; the default stands under the home folder.
# vLLM 0.32.0 envs.py and utils/deep_gemm.py, and each library's documentation, read 2026-11-22.
CACHES = {
    "VLLM_CACHE_ROOT": ".cache/vllm",
    "HF_HOME": ".cache/huggingface",
    "TRITON_CACHE_DIR": ".triton/cache",
    "FLASHINFER_WORKSPACE_BASE": "",  # it adds .cache/flashinfer itself
    "TILELANG_CACHE_DIR": ".tilelang/cache",
    "CUDA_CACHE_PATH": ".nv/ComputeCache",
}
_UNDER_XDG = ".cache/"  # vLLM and Hugging Face take XDG_CACHE_HOME before ~/.cache


@dataclass(frozen=True)
class Visible:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, by NVML's index, and the first name in it that no GPU has."""

    indexes: tuple[int, ...] = ()
    unknown: str = ""
    named: str | None = None


@dataclass(frozen=True)
class Limits:
    """Limits of resources, bytes or files; -1 is no limit. For open files the hard limit: vLLM raises the soft one."""

    memlock: int = -1
    stack: int = -1
    files: int = -1


@dataclass(frozen=True)
class Cache:
    """A cache folder: the variable that names it, the part of its path that exists, and that part's state."""

    variable: str
    path: str
    exists: str = "/"
    writable: bool = True
    free: int = 1 << 40


@dataclass(frozen=True)
class Host:
    """Everything that the checks of host and GPUs look at. `driver` is None when the plan needs no GPU."""

    driver: Driver | None = None
    visible: Visible = Visible()
    module: str = ""
    """The version of the loaded kernel module; empty when none is loaded, or the container hides it."""
    device_nodes: bool = True
    compat: str = ""
    """Version of the libcuda of a CUDA compatibility package that comes first in LD_LIBRARY_PATH."""
    shm_free: int | None = None
    shm_writable: bool = True
    limits: Limits = Limits()
    home: str = "/root"
    caches: tuple[Cache, ...] = ()
    ports: tuple[Port, ...] = ()
    bf16: bool = True
    """Whether the CPU has AVX512_BF16."""
    missing_files: Mapping[str, str] = field(default_factory=dict)
    """NCCL variables that name a file which is not there."""
    missing_tools: tuple[str, ...] = ()
    """What compiling a kernel needs and this host lacks, of nvcc, ninja, cc and Python.h."""
    cubins: bool = False
    """Whether FlashInfer's compiled kernels (flashinfer-cubin) are installed."""


def read_host(asked: Asked, nvml: Any = None) -> Host:
    """Read this host for a plan; NVML is asked only when the plan needs a GPU."""
    driver = read_driver(nvml) if asked.gpus else None
    module = Path("/proc/driver/nvidia/version")
    return Host(
        driver,
        visible_gpus(driver, asked.env.get("CUDA_VISIBLE_DEVICES")) if driver else Visible(),
        module=_module(module.read_text()) if module.exists() else "",
        device_nodes=Path("/dev/nvidiactl").exists(),
        compat=compat_version(asked.env.get("LD_LIBRARY_PATH", "")),
        shm_free=shutil.disk_usage(SHM).free if SHM.is_dir() else None,
        shm_writable=os.access(SHM, os.W_OK | os.X_OK) if SHM.is_dir() else True,
        limits=read_limits(),
        home=home_folder(asked.env),
        caches=tuple(read_caches(asked.env)),
        ports=tuple(look(*port) for port in asked.ports),
        bf16="avx512_bf16" in Path("/proc/cpuinfo").read_text(),
        missing_files={
            name: asked.env[name]
            for name in ("NCCL_GRAPH_FILE", "NCCL_TOPO_FILE")
            if asked.env.get(name) and not Path(asked.env[name]).is_file()
        },
        missing_tools=tuple(build_tools.missing(asked.env)) if asked.gpus else (),
        cubins=build_tools.has_cubins(),
    )


def visible_gpus(driver: Driver, named: str | None) -> Visible:
    """Read CUDA_VISIBLE_DEVICES as CUDA does: indexes or beginnings of UUIDs, up to the first that no GPU has."""
    if named is None:
        return Visible(tuple(gpu.index for gpu in driver.gpus))
    found: list[int] = []
    for part in map(str.strip, named.split(",")):
        hits = [g.index for g in driver.gpus if part == str(g.index) or (len(part) > 4 and g.uuid.startswith(part))]
        if not hits:
            return Visible(tuple(found), part, named)
        found += hits[:1]
    return Visible(tuple(found), named=named)


def read_limits() -> Limits:
    """Return this process's limits, which vLLM inherits."""
    return Limits(
        resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        resource.getrlimit(resource.RLIMIT_STACK)[0],
        resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    )


def home_folder(env: Mapping[str, str]) -> str:
    """Return HOME, else the home folder of this user's account; `~` when there is neither, as Python leaves it."""
    if home := env.get("HOME"):
        return home
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "~"


def read_caches(env: Mapping[str, str]) -> Iterator[Cache]:
    """Yield every cache folder with the nearest part of its path that exists."""
    home = home_folder(env)
    for variable, default in CACHES.items():
        base = env.get("XDG_CACHE_HOME") if default.startswith(_UNDER_XDG) else None
        named = env.get(variable) or (f"{base}/{default.removeprefix(_UNDER_XDG)}" if base else f"{home}/{default}")
        path = Path(named).absolute()
        exists = next(part for part in (path, *path.parents) if part.exists())
        writable = exists.is_dir() and os.access(exists, os.W_OK | os.X_OK)
        yield Cache(variable, named, str(exists), writable, shutil.disk_usage(exists).free)


def compat_version(library_path: str) -> str:
    """Return the version of the first libcuda.so.N.M in a folder named compat of LD_LIBRARY_PATH, or nothing."""
    for folder in filter(None, library_path.split(":")):
        libraries = sorted(Path(folder).glob("libcuda.so.*.*"))
        if libraries and "compat" in Path(folder).parts:
            return libraries[0].name.removeprefix("libcuda.so.")
        if libraries or (Path(folder) / "libcuda.so.1").exists():
            return ""
    return ""


def _module(text: str) -> str:
    """Return 580.159.04 from `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build`."""
    words = text.split("\n", 1)[0].split()
    return next((word for word in words if word[:1].isdigit() and word.count(".") >= 1), "")
