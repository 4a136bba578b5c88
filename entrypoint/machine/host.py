"""What this host offers one plan: the machine, and the folders, ports and tools that the plan needs."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .. import procfs
from ..plan import TUNED_KERNELS
from ..weights import hub_cache, prefetch
from . import build_tools, vllm_packages
from .machine import Machine
from .ports import Port, probe_port
from .requirements import HostRequirements

# Where vLLM and its libraries keep compiled kernels; defaults are relative to the home folder.
# vLLM 0.32.0 envs.py and utils/deep_gemm.py, and each library's documentation, read 2026-11-22.
CACHES = {
    "VLLM_CACHE_ROOT": ".cache/vllm",
    "TRITON_CACHE_DIR": ".triton/cache",
    "FLASHINFER_WORKSPACE_BASE": "",  # it adds .cache/flashinfer itself
    "TILELANG_CACHE_DIR": ".tilelang/cache",
    "CUDA_CACHE_PATH": ".nv/ComputeCache",
}
_UNDER_XDG = ".cache/"  # vLLM takes XDG_CACHE_HOME before ~/.cache


@dataclass(frozen=True)
class CacheFolder:
    """A cache folder: the variable that names it, the part of its path that exists, and that part's state."""

    variable: str
    path: str
    exists: str = "/"
    writable: bool = True
    free: int = 1 << 40


@dataclass(frozen=True)
class Host:
    """Everything that the checks of host and GPUs need, for one plan. Sizes in bytes."""

    machine: Machine = field(default_factory=Machine)
    """As the plan's vLLM will see it."""
    compat: str = ""
    """Version of the libcuda of a CUDA compatibility package that comes first in LD_LIBRARY_PATH."""
    home: str = "/root"
    caches: tuple[CacheFolder, ...] = ()
    ports: tuple[Port, ...] = ()
    missing_files: Mapping[str, str] = field(default_factory=dict)
    """NCCL variables that name a file that does not exist."""
    missing_tools: tuple[str, ...] = ()
    """What compiling a kernel needs and this host lacks, of nvcc, ninja, cc and Python.h."""
    cubins: bool = False
    """Whether FlashInfer's compiled kernels (flashinfer-cubin) are installed."""
    missing_packages: tuple[str, ...] = ()
    """What vLLM needs for its traces and this installation lacks."""
    missing_tables: str = ""
    """The folder of tables of measured kernels that vLLM is told to read, where there is none."""
    memory_free: int | None = None
    """Memory that may still be taken, where a plan offloads KV caches."""
    offloading_folders: tuple[CacheFolder, ...] = ()
    """Folders of files of KV offloading."""
    missing_tier_packages: tuple[str, ...] = ()
    """What tiers of KV offloading import and this installation lacks."""
    regions_in_use: tuple[str, ...] = ()
    """Files in shared memory that KV offloading of this plan would take, and another process has mapped."""


def read_host(machine: Machine, required: HostRequirements) -> Host:
    """Read what a plan needs of this host, in addition to the machine itself."""
    env = required.env
    return Host(
        machine.seen_with(env),
        compat=compat_version(env.get("LD_LIBRARY_PATH", "")),
        home=home_folder(env),
        caches=tuple(read_caches(env)),
        ports=tuple(read_ports(required)),
        missing_files={
            name: env[name]
            for name in ("NCCL_GRAPH_FILE", "NCCL_TOPO_FILE")
            if env.get(name) and not _is_file(env[name])
        },
        missing_tools=tuple(build_tools.missing(env)) if required.gpus else (),
        cubins=build_tools.has_cubins(),
        missing_packages=vllm_packages.missing_for_traces(env) if required.traces else (),
        memory_free=prefetch.available() if required.offloading_gib else None,
        offloading_folders=tuple(_cache_folder("root_dir", path) for path in required.offloading_folders),
        missing_tier_packages=vllm_packages.missing(required.offloading_packages, env),
        regions_in_use=tuple(in_use(required.offloading_regions)),
        missing_tables="" if os.path.isdir(tables := env.get(TUNED_KERNELS, "")) else tables,  # noqa: PTH112  as _is_file
    )


def in_use(regions: Iterable[str]) -> Iterator[str]:
    """Yield the files in shared memory that a process of this user has mapped."""
    if there := [region for region in regions if _is_file(region)]:
        mapped = procfs.shared_files(procfs.pids())
        yield from (region for region in there if Path(region) in mapped)


def read_ports(required: HostRequirements) -> Iterator[Port]:
    """Yield the state of each port."""
    if required.api_port:
        yield probe_port(required.api_port)
    if health := required.health_port:
        yield Port(health.host, health.number, health.port_setting) if required.listening else probe_port(health)


def home_folder(env: Mapping[str, str]) -> str:
    """Return HOME, else the home folder of this user's account; `~` when there is neither, as Python leaves it."""
    if home := env.get("HOME"):
        return home
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "~"


def read_caches(env: Mapping[str, str]) -> Iterator[CacheFolder]:
    """Yield every cache folder with the nearest part of its path that exists."""
    home = home_folder(env)
    for variable, default in CACHES.items():
        base = env.get("XDG_CACHE_HOME") if default.startswith(_UNDER_XDG) else None
        named = env.get(variable) or (f"{base}/{default.removeprefix(_UNDER_XDG)}" if base else f"{home}/{default}")
        yield _cache_folder(variable, named)
    hub = next((name for name in hub_cache.VARIABLES if name in env), hub_cache.VARIABLES[-1])
    yield _cache_folder(hub, str(hub_cache.folder({"XDG_CACHE_HOME": f"{home}/.cache", **env})))


def _cache_folder(variable: str, named: str) -> CacheFolder:
    path = Path(named).absolute()
    exists = next(part for part in (path, *path.parents) if os.path.lexists(part))  # a link to nowhere is in the way
    there = os.path.exists(exists)  # noqa: PTH110 - see _is_file
    refused = _refused(exists)
    full = refused in (errno.ENOSPC, errno.EDQUOT)  # of inodes or a quota, which the free bytes do not show
    free = 0 if full else shutil.disk_usage(exists if there else exists.parent).free
    return CacheFolder(variable, named, str(exists), full or not refused, free)


def _refused(folder: Path) -> int:
    """
    Make a file and remove it; return the error's number, 0 for none.

    Root may write to /proc and /sys by their modes, but no file can be made there.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            return 0
    except OSError as error:
        return error.errno or errno.EIO


def compat_version(library_path: str) -> str:
    """Return the version of the first libcuda.so.N.M in a folder named compat of LD_LIBRARY_PATH, or nothing."""
    for folder in filter(None, library_path.split(":")):
        libraries = sorted(Path(folder).glob("libcuda.so.*.*"))
        if libraries and "compat" in Path(folder).parts:
            return libraries[0].name.removeprefix("libcuda.so.")
        if libraries or _is_file(f"{folder}/libcuda.so.1"):
            return ""
    return ""


def _is_file(path: str) -> bool:
    """Tell whether a file is there and can be reached; Path's methods raise OSError in a folder of another user."""
    return os.path.isfile(path)  # noqa: PTH113
