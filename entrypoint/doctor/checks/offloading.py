"""Check what vLLM's own KV offloading needs of this host or container, for a plan that uses it."""

from __future__ import annotations

from ...machine.host import Host
from ...machine.requirements import HostRequirements
from ...problem import Problem, check
from .host import FULL

GIB = 1 << 30
_PAGE = "docs/how-to/kv-offloading.md"


@check(
    symptom="the kernel kills a worker after `Created mmap file /dev/shm/vllm_offload_…`",
    link=_PAGE,
    remedy="raise the container's memory limit by as much, or choose a smaller --kv-offloading-size",
    tried="constructed",
)
def offloading_memory(host: Host, required: HostRequirements) -> Problem | None:
    """There is memory for the caches of KV offloading: vLLM takes all of it while it starts."""
    needed = required.offloading_gib * GIB
    if not needed or host.memory_free is None or host.memory_free >= needed:
        return None
    return Problem(
        f"this host or container has {host.memory_free / GIB:.1f} GiB of memory left",
        f"{required.offloading_gib:g} GiB for KV offloading, and what vLLM's processes take",
    )


@check(
    symptom="no error: wrong answers, after `Opened existing mmap file /dev/shm/vllm_offload_…`",
    link=_PAGE,
    remedy="leave engine_id out of --kv-transfer-config, and vLLM makes up another one at each start",
    tried="constructed",
)
def offloading_region(host: Host, _required: HostRequirements) -> Problem | None:
    """No other server has the region of KV offloading in /dev/shm: two in one overwrite each other's caches."""
    if not host.regions_in_use:
        return None
    return Problem(f"another process has mapped {host.regions_in_use[0]}", "a region of its own for each server")


@check(
    symptom="PermissionError or OSError: [Errno 30] Read-only file system, from v1/kv_offload/tiering/fs/manager.py",
    link=_PAGE,
    remedy="mount a volume there that this user can write, or name another root_dir",
    tried="for real",
)
def offloading_folder(host: Host, _required: HostRequirements) -> Problem | None:
    """The folders of file tiers of KV offloading can be written."""
    wrong = [folder for folder in host.offloading_folders if not folder.writable]
    if not wrong:
        return None
    return Problem(f"{wrong[0].exists} cannot be written to (root_dir {wrong[0].path})", "a writable folder")


@check(
    symptom="Job … block I/O failed, in vLLM's log, and nothing more is kept",
    link=_PAGE,
    remedy="name a root_dir on a larger disk, and remove old files there: vLLM never does",
    tried="for real",
)
def offloading_space(host: Host, required: HostRequirements) -> Problem | None:
    """File tiers have room for as much as host memory keeps. On a full disk vLLM serves, and keeps nothing more."""
    least = required.offloading_gib * GIB
    full = [folder for folder in host.offloading_folders if folder.writable and folder.free < least]
    if not full:
        return None
    seen = f"has {full[0].free / GIB:.1f} GiB free" if full[0].free else FULL
    return Problem(
        f"{full[0].exists} {seen} (root_dir {full[0].path})",
        f"{required.offloading_gib:g} GiB, as much as host memory keeps, or files hold nothing that it does not",
        fatal=False,
    )


@check(
    symptom="ModuleNotFoundError, from v1/kv_offload/tiering/",
    link=_PAGE,
    remedy="use a tier of type fs, or install what is missing",
    tried="constructed",
)
def offloading_packages(host: Host, _required: HostRequirements) -> Problem | None:
    """The modules that other tiers of KV offloading import are installed."""
    if not host.missing_tier_packages:
        return None
    return Problem(f"not installed: {', '.join(host.missing_tier_packages)}", "them, for the tiers of this plan")
