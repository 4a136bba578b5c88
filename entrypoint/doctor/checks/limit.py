"""Shared memory and limits of this host or container, against what a plan asks. Each check takes (Host, Asked)."""

from __future__ import annotations

from collections.abc import Callable

from ...machine.host import SHM, Host
from ...machine.requirements import Asked
from ...problem import Problem, Wild, check

MIB = 1 << 20
QUEUE = 10 * 24 * MIB
"""vLLM's largest message queue: 10 chunks of 24 MiB (distributed/device_communicators/shm_broadcast.py, 0.32.0)."""
FILES = 65535
"""Open files that vLLM's API server raises its limit to (utils/system_utils.py: set_ulimit, 0.32.0)."""
STACK = 8 * MIB
"""Linux's own default; NVIDIA's containers ask for 64 MiB."""

_NCCL_SHM = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#shared-memory"


def shm_needed(asked: Asked) -> int:
    """
    Return the least free bytes in /dev/shm.

    vLLM refuses to start when its largest queue does not fit. Without peer access NCCL's data goes through /dev/shm
    too: for every rank and channel one connection of 4 KiB + 512 KiB (LL) + 4,915,200 B (LL128) + NCCL_BUFFSIZE,
    as in NVIDIA/nccl#342 (9,637,888 B at the default of 4 MiB), for two communicators: torch's and vLLM's own.
    """
    if asked.group < 2:
        return 0
    if asked.peer_access or asked.env.get("NCCL_SHM_DISABLE", "0") != "0":
        return QUEUE
    connection = 4096 + 524288 + 4915200 + _number(asked, "NCCL_BUFFSIZE", 4 * MIB)
    return QUEUE + 2 * asked.group * _number(asked, "NCCL_MIN_NCHANNELS", 2) * connection


@check(
    Wild(
        "ncclShmOpen: No space left on device; Insufficient space in /dev/shm",
        "https://github.com/vllm-project/vllm/issues/1710",
        tried="for real",
    )
)
def shared_memory(host: Host, asked: Asked) -> Problem | None:
    """Shared memory holds vLLM's queues and, without peer access, NCCL's buffers."""
    if not host.shm_writable:
        return Problem(
            f"{SHM} cannot be written",
            "writable",
            "take away what is mounted there read-only; docker run --shm-size=16g",
        )
    needed = shm_needed(asked)
    if host.shm_free is None or host.shm_free >= needed:
        return None
    return Problem(
        f"{SHM} has {host.shm_free / MIB:.0f} MiB free",
        f"at least {needed / MIB:.0f} MiB at {asked.group} GPUs"
        + ("" if asked.peer_access else ", as NCCL's data goes through it without peer access"),
        "docker run --shm-size=16g or --ipc=host; on Kubernetes an emptyDir of medium Memory there",
    )


@check(Wild("instanttensor: cannot lock memory", _NCCL_SHM, failures=(48,), tried="for real"))
def memlock(host: Host, asked: Asked) -> Problem | None:
    """The loader `instanttensor` locks memory."""
    limit = host.limits.memlock
    if asked.load_format != "instanttensor" or limit == -1:
        return None
    return Problem(
        f"memory that may be locked is limited to {limit // 1024} KiB, and --load-format instanttensor locks more",
        "no limit",
        "docker run --ulimit memlock=-1, or --load-format auto",
    )


@check(Wild("segmentation fault in a worker", _NCCL_SHM, tried="for real"))
def stack(host: Host, _asked: Asked) -> Problem | None:
    """Threads have Linux's usual stack."""
    limit = host.limits.stack
    if limit == -1 or limit >= STACK:
        return None
    return Problem(
        f"stacks are limited to {limit // 1024} KiB", "8 MiB or more", "docker run --ulimit stack=67108864", fatal=False
    )


@check(
    Wild(
        "OSError: [Errno 24] Too many open files, under load",
        "https://docs.vllm.ai/en/latest/usage/troubleshooting.html",
        tried="for real",
    )
)
def open_files(host: Host, _asked: Asked) -> Problem | None:
    """vLLM can raise its limit of open files."""
    limit = host.limits.files
    if limit == -1 or limit >= FILES:
        return None
    return Problem(f"at most {limit} files can be open", f"{FILES}", f"docker run --ulimit nofile={FILES}", fatal=False)


def _number(asked: Asked, name: str, otherwise: int) -> int:
    text = asked.env.get(name, "")
    return int(text) if text.isdecimal() else otherwise


CHECKS: tuple[Callable[[Host, Asked], Problem | None], ...] = (shared_memory, memlock, stack, open_files)
