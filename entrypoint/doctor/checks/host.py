"""Check folders, ports, files and tools of this host or container for a plan."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ...machine.host import CacheFolder, Host
from ...machine.ports import Port
from ...machine.requirements import HostRequirements
from ...plan import TUNED_KERNELS
from ...problem import Problem, check

MIB = 1 << 20
CACHE_SPACE = 1 << 30
"""Our floor. The kernels that six layouts of DeepSeek-V4 compiled on 2 x H200 are 34 MB packed (2026-11-22)."""
FULL = "takes no more files: it has no space, inodes or quota left"

_VOLUME = "mount a volume there, or set {names} to a folder on one"
_PORT = "end the process that holds it, or choose another port with {settings}"
_OTHER = "choose another port with {settings}"
_ADDRESS = "set {settings} to an address of this host"
_UNSET = "unset {name}"
_NCCL_SHM = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#shared-memory"


@check(
    symptom="PermissionError: [Errno 13] Permission denied: '/.cache'",
    link="https://github.com/vllm-project/vllm/issues/10185",
    remedy=_VOLUME,
    tried="for real",
)
def cache_writable(host: Host, _required: HostRequirements) -> Problem | None:
    """The folders for compiled kernels and weights are writable."""
    wrong = [cache for cache in host.caches if not cache.writable]
    return _caches(wrong, "cannot be written to", "a writable folder") if wrong else None


@check(
    symptom="OSError: [Errno 28] No space left on device, while kernels compile",
    link="https://github.com/gpustack/gpustack/issues/5014",
    remedy=_VOLUME,
    failures=(47,),
    tried="for real",
)
def cache_space(host: Host, _required: HostRequirements) -> Problem | None:
    """The cache folders have room for compiled kernels."""
    full = [cache for cache in host.caches if cache.writable and cache.free < CACHE_SPACE]
    if not full:
        return None
    seen = f"has {full[0].free / MIB:.0f} MiB free" if full[0].free else FULL
    return _caches(full, seen, f"{CACHE_SPACE / MIB:.0f} MiB or more")


@check(
    symptom="KeyError: getpwuid(): uid not found: 1000910000",
    link="https://github.com/vllm-project/vllm/issues/44548",
    remedy="set HOME to a writable folder (-e HOME=…)",
    tried="for real",
)
def home_known(host: Host, _required: HostRequirements) -> Problem | None:
    """This user has a home folder, where caches are kept."""
    if host.home.startswith("/"):
        return None
    return Problem("this user id has no account, and HOME is not set", "a home folder")


def _shared(ports: Sequence[Port]) -> int:
    """Return the port that two servers would listen on at one address; 0 for none."""
    for one, other in itertools.combinations(ports, 2):
        if one.number == other.number and (one.host == other.host or {"0.0.0.0", "::"} & {one.host, other.host}):  # noqa: S104
            return one.number
    return 0


@check(
    symptom="[Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
    link="https://github.com/vllm-project/vllm/issues/7514",
    remedy=(_PORT, _OTHER, _ADDRESS),
    tried="for real",
)
def port_free(host: Host, _required: HostRequirements) -> Problem | None:
    """The ports of vLLM and of the health server are free."""
    taken = [port for port in host.ports if port.refused]
    if twice := _shared(host.ports):
        seen = f"port {twice} is both vLLM's and the health server's"
        return Problem(seen, "two ports", _OTHER.format(settings=" or ".join(port.setting for port in host.ports)))
    if not taken:
        return None
    seen = "; ".join(f"port {p.number} on {p.host}: {p.refused}" + (f", {p.holder}" if p.holder else "") for p in taken)
    settings = " and ".join(port.setting for port in taken)
    if all(port.elsewhere for port in taken):
        return Problem(seen, "an address to listen on", _ADDRESS.format(settings=settings))
    return Problem(seen, "free ports", _PORT.format(settings=settings))


@check(
    symptom="DeepSeek-V4 on CPU needs an x86 CPU with AVX512_BF16",
    link="docs/explanation/patches.md",
    remedy="use PROFILE=demo",
    tried="constructed",
)
def cpu_bf16(host: Host, required: HostRequirements) -> Problem | None:
    """The CPU has the instructions that DeepSeek-V4's CPU kernels need."""
    if not required.deepseek_on_cpu or host.machine.avx512_bf16:
        return None
    return Problem(
        "this CPU has no AVX512_BF16",
        "a CPU that has it (AMD Zen 4, Intel Cooper Lake or Sapphire Rapids, and newer)",
    )


@check(
    symptom="NCCL fails at start: could not open the graph or topology file",
    link=_NCCL_SHM,
    remedy=_UNSET,
    tried="for real",
)
def nccl_files(host: Host, _required: HostRequirements) -> Problem | None:
    """The files that NCCL's variables name exist."""
    if not host.missing_files:
        return None
    name, path = next(iter(sorted(host.missing_files.items())))
    return Problem(f"{name}={path} is not a file", "an existing file, or the variable unset", _UNSET.format(name=name))


@check(
    symptom="has_flashinfer() is false on SM 12.0; fatal error: Python.h: No such file or directory; ninja not found",
    link="https://github.com/vllm-project/vllm/pull/47669",
    remedy="use the image, or install what is missing (apt-get install cuda-nvcc-13-0 ninja-build gcc python3-dev)",
    failures=(37,),
    tried="for real",
)
def build_tools(host: Host, required: HostRequirements) -> Problem | None:
    """Kernels can be compiled. On SM 12.x vLLM needs FlashInfer's, installed or built, to serve DeepSeek-V4."""
    if not host.missing_tools:
        return None
    needed = {"nvcc", "ninja"} & set(host.missing_tools)
    return Problem(
        f"{', '.join(host.missing_tools)} not found, and kernels are compiled at start",
        "a CUDA 13 toolkit with nvcc, ninja, a C compiler and Python's headers",
        fatal=bool(needed) and not host.cubins and required.capability.startswith("12."),
    )


@check(
    symptom="OpenTelemetry is not available. Unable to configure 'otlp_traces_endpoint'",
    link="docs/how-to/traces.md",
    remedy="pip install 'vllm[otel]==0.32.0', or leave otlp-traces-endpoint out",
    tried="constructed",
)
def trace_packages(host: Host, _required: HostRequirements) -> Problem | None:
    """The packages that vLLM's traces need are installed, where the plan sends traces."""
    if not host.missing_packages:
        return None
    return Problem(f"not installed: {', '.join(host.missing_packages)}", "them, as otlp-traces-endpoint is set")


@check(
    symptom="vLLM's log has no line `Using … tuned Humming MoE configs from`",
    link="docs/how-to/tune.md",
    remedy=f"mount that folder there, or leave {TUNED_KERNELS} to the plan",
    tried="constructed",
)
def kernel_tables(host: Host, _required: HostRequirements) -> Problem | None:
    """The folder of tables of measured kernels exists, where one is named. vLLM says nothing when it does not."""
    if not host.missing_tables:
        return None
    return Problem(f"{TUNED_KERNELS}={host.missing_tables} is not a folder", "an existing folder", fatal=False)


def _caches(wrong: list[CacheFolder], seen: str, needed: str) -> Problem:
    names = ", ".join(cache.variable for cache in wrong)
    places = ", ".join(sorted({cache.exists for cache in wrong}))
    return Problem(f"{places} {seen} ({names})", needed, _VOLUME.format(names=names))
