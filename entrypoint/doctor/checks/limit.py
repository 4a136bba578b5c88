"""Check shared memory and limits of this host or container for a plan."""

from __future__ import annotations

from ...machine.host import Host
from ...machine.machine import SHM
from ...machine.requirements import HostRequirements
from ...problem import Problem, check

MIB = 1 << 20
QUEUE = 10 * 24 * MIB
"""vLLM's largest message queue: 10 chunks of 24 MiB (distributed/device_communicators/shm_broadcast.py, 0.32.0)."""
FILES = 65535
"""Open files that vLLM's API server raises its limit to (utils/system_utils.py: set_ulimit, 0.32.0)."""
STACK = 8 * MIB
"""Linux's own default; NVIDIA's containers recommend 64 MiB."""

_ENLARGE = "use docker run --shm-size=16g or --ipc=host; on Kubernetes, mount an emptyDir of medium Memory there"
_OFFLOADING = (
    "use docker run --shm-size with 16 GiB more than --kv-offloading-size, as in --shm-size=80g for 64, or a smaller"
    " --kv-offloading-size"
)
_REMOUNT = "remove the read-only mount there, and use docker run --shm-size=16g"
_NCCL_SHM = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#shared-memory"


def shm_needed(required: HostRequirements) -> int:
    """
    Return the least free bytes in /dev/shm.

    vLLM refuses to start when its largest queue does not fit. Without peer access NCCL's data goes through /dev/shm
    too: for every rank and channel one connection of 4 KiB + 512 KiB (LL) + 4,915,200 B (LL128) + NCCL_BUFFSIZE,
    as in NVIDIA/nccl#342 (9,637,888 B at the default of 4 MiB), for two communicators: torch's and vLLM's own.
    vLLM's own KV offloading keeps its caches there (v1/kv_offload/cpu/shared_offload_region.py, 0.32.0).
    """
    return int(required.offloading_gib * (1 << 30)) + _communication(required)


def _communication(required: HostRequirements) -> int:
    if required.group < 2:
        return 0
    if required.peer_access or required.env.get("NCCL_SHM_DISABLE", "0") != "0":
        return QUEUE
    connection = 4096 + 524288 + 4915200 + _number(required, "NCCL_BUFFSIZE", 4 * MIB)
    return QUEUE + 2 * required.group * _number(required, "NCCL_MIN_NCHANNELS", 2) * connection


@check(
    symptom="ncclShmOpen: No space left on device; Insufficient space in /dev/shm",
    link="https://github.com/vllm-project/vllm/issues/1710",
    remedy=(
        _ENLARGE,
        _REMOUNT,
        _OFFLOADING,
    ),
    tried="for real",
)
def shared_memory(host: Host, required: HostRequirements) -> Problem | None:
    """Shared memory holds vLLM's queues, the caches of KV offloading and, without peer access, NCCL's buffers."""
    if not host.machine.shm_writable:
        return Problem(
            f"{SHM} cannot be written",
            "write access",
            _REMOUNT,
        )
    needed = shm_needed(required)
    if host.machine.shm_free is None or host.machine.shm_free >= needed:
        return None
    return Problem(
        f"{SHM} has {host.machine.shm_free / MIB:.0f} MiB free",
        f"at least {needed / MIB:.0f} MiB for {required.group} GPU{'s' * (required.group != 1)}"
        + (f" and {required.offloading_gib:g} GiB of KV offloading" if required.offloading_gib else "")
        + ("" if required.peer_access else ", as NCCL's data goes through it without peer access"),
        _OFFLOADING if required.offloading_gib else _ENLARGE,
    )


@check(
    symptom="instanttensor: cannot lock memory",
    link=_NCCL_SHM,
    remedy="use docker run --ulimit memlock=-1, or --load-format auto",
    failures=(48,),
    tried="for real",
)
def memlock(host: Host, required: HostRequirements) -> Problem | None:
    """The loader `instanttensor` may lock as much memory as it needs."""
    limit = host.machine.limits.memlock
    if required.load_format != "instanttensor" or limit == -1:
        return None
    return Problem(
        f"locked memory is limited to {limit // 1024} KiB, but --load-format instanttensor locks more",
        "no limit",
    )


@check(
    symptom="segmentation fault in a worker",
    link=_NCCL_SHM,
    remedy="use docker run --ulimit stack=67108864",
    tried="for real",
)
def stack(host: Host, _required: HostRequirements) -> Problem | None:
    """Threads have at least Linux's default stack."""
    limit = host.machine.limits.stack
    if limit == -1 or limit >= STACK:
        return None
    return Problem(f"stacks are limited to {limit // 1024} KiB", "8 MiB or more", fatal=False)


@check(
    symptom="OSError: [Errno 24] Too many open files, under load",
    link="https://docs.vllm.ai/en/latest/usage/troubleshooting.html",
    remedy=f"use docker run --ulimit nofile={FILES}",
    tried="for real",
)
def open_files(host: Host, _required: HostRequirements) -> Problem | None:
    """vLLM can raise its limit on open files to 65,535."""
    limit = host.machine.limits.files
    if limit == -1 or limit >= FILES:
        return None
    return Problem(f"at most {limit} files can be open", f"{FILES}", fatal=False)


def _number(required: HostRequirements, name: str, otherwise: int) -> int:
    text = required.env.get(name, "")
    return int(text) if text.isdecimal() else otherwise
