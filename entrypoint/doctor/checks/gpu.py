"""Each GPU that a plan gets: its architecture, memory, modes and health. Each check takes (Host, Asked)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from ...machine.host import Host
from ...machine.nvml import Driver, Gpu
from ...machine.requirements import Asked
from ...problem import Problem, Wild, check

ARCHITECTURES = ("9.0", "10.0", "10.3", "12.0", "12.1")
"""Compute capabilities that DeepSeek-V4's attention kernels of vLLM 0.32.0 are built for (SM 9.0, 10.x, 12.x)."""

CONTEXT = round(1.07 * 2**30)
"""What CUDA and vLLM take before vLLM looks: 95.01 GiB, 93.94 free (RTX PRO 6000, third-party log, 2026)."""

_NVML = "https://docs.nvidia.com/deploy/nvml-api/index.html"


@check(Wild("Unsupported architecture for sparse decode fwd", "https://github.com/vllm-project/vllm/pull/41834", (38,)))
def compute_capability(host: Host, asked: Asked) -> Problem | None:
    """The GPUs' architecture is the hardware profile's, else one that vLLM has DeepSeek-V4 kernels for."""
    wanted = {asked.capability} if asked.capability else set(ARCHITECTURES)
    wrong = [gpu for gpu in served(host, asked) if gpu.capability and gpu.capability not in wanted]
    if not wrong:
        return None
    needed = f"SM {asked.capability} ({asked.hardware})" if asked.capability else f"SM {', '.join(ARCHITECTURES)}"
    return Problem(
        f"{_which(wrong)}: {wrong[0].name}, SM {wrong[0].capability}", needed, "choose by hand: --hardware NAME"
    )


@check(Wild("Free memory on device ... is less than desired GPU memory utilization", _NVML, (42,), "constructed"))
def busy_gpu(host: Host, asked: Asked) -> Problem | None:
    """As much memory is free as vLLM will ask for once CUDA has started, and if not: who holds it."""
    short = [gpu for gpu in served(host, asked) if gpu.free - CONTEXT < _wanted(gpu, asked)]
    if not short:
        return None
    worst = min(short, key=lambda gpu: gpu.free)
    holders = ", ".join(f"pid {p.pid}" + (f" {_gib(p.used)}" if p.used else "") for p in worst.processes)
    share = max(math.floor(100 * (worst.free - CONTEXT) / (worst.total - worst.reserved)) / 100, 0.0)
    return Problem(
        f"{_which(short)}: {_gib(worst.free)} of {_gib(worst.total)} free"
        + (f", held by {holders}" if holders else ""),
        f"{_gib(int(_wanted(worst, asked)) + CONTEXT)}: gpu-memory-utilization {asked.utilization} and"
        f" {_gib(CONTEXT)} for CUDA itself",
        f"end what else runs there, or set GPU_MEMORY_UTILIZATION={share:.2f}",
    )


def _wanted(gpu: Gpu, asked: Asked) -> float:
    return asked.utilization * (gpu.total - gpu.reserved)


@check(
    Wild(
        "ValueError: invalid literal for int() with base 10: 'MIG-...'",
        "https://github.com/vllm-project/vllm/issues/41848",
    )
)
def mig_mode(host: Host, asked: Asked) -> Problem | None:
    """No GPU is split: a slice holds no DeepSeek-V4, and slices have no peer access."""
    problem = Problem("is split (MIG mode)", "a whole GPU", "nvidia-smi -i INDEX -mig 0")
    return _about([gpu for gpu in served(host, asked) if gpu.mig], problem)


@check(Wild("CUDA error: all CUDA-capable devices are busy or unavailable", _NVML))
def compute_mode(host: Host, asked: Asked) -> Problem | None:
    """Programs may use the GPU."""
    problem = Problem("is in compute mode prohibited", "compute mode default", "nvidia-smi -i INDEX -c DEFAULT")
    return _about([gpu for gpu in served(host, asked) if gpu.compute_mode == "prohibited"], problem)


@check(Wild("Error 802: system not yet initialized", "https://github.com/huggingface/huggingface_hub/issues/4134"))
def fabric_manager(host: Host, asked: Asked) -> Problem | None:
    """On NVSwitch boards the fabric is up: CUDA does not start without it."""
    problem = Problem(
        "waits for the NVLink fabric",
        "fabric state completed",
        "start nvidia-fabricmanager on the host, in the version of the driver",
    )
    return _about([gpu for gpu in served(host, asked) if gpu.fabric in ("not started", "in progress")], problem)


@check(
    Wild(
        "Xid 63 and 64: row remapping failed; CUDA error: uncorrectable ECC error encountered",
        "https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/error-recovery-and-response-flags.html",
    )
)
def gpu_memory_errors(host: Host, asked: Asked) -> Problem | None:
    """The GPU's memory is sound: no failed row remapping, no uncorrectable error since the driver was loaded."""
    problem = Problem(
        "has memory errors (uncorrectable, or a failed row remapping)",
        "none",
        "reset it (nvidia-smi -r -i INDEX); have it replaced when a remapping failed",
    )
    return _about([gpu for gpu in served(host, asked) if gpu.remap_failed or gpu.uncorrected], problem)


@check(
    Wild(
        "Xid 79: GPU has fallen off the bus; GPU is lost; GPU requires reset",
        "https://docs.nvidia.com/deploy/xid-errors/index.html",
    )
)
def gpu_recovery(host: Host, _asked: Asked) -> Problem | None:
    """The driver can read every visible GPU, and asks for no reset."""
    gpus = [host.driver.gpu(index) for index in host.visible.indexes] if host.driver else []
    ill = [gpu for gpu in gpus if gpu.error or gpu.recovery not in (None, "none")]
    seen = f"is ill: {ill[0].error or 'the driver asks for ' + str(ill[0].recovery)}" if ill else ""
    fix = "reset it (nvidia-smi -r -i INDEX) or reboot the host, or leave it out with CUDA_VISIBLE_DEVICES"
    return _about(ill, Problem(seen, "GPUs without a pending recovery", fix))


@check(
    Wild(
        "the first CUDA call takes seconds for each GPU, at every start",
        "https://docs.nvidia.com/deploy/driver-persistence/persistence-daemon.html",
    )
)
def persistence(host: Host, asked: Asked) -> Problem | None:
    """The driver keeps idle GPUs initialized."""
    problem = Problem(
        "is not kept initialized (persistence mode is off): starts are slower",
        "nvidia-persistenced on the host",
        "systemctl enable --now nvidia-persistenced on the host",
        fatal=False,
    )
    return _about([gpu for gpu in served(host, asked) if gpu.persistence is False], problem)


@check(Wild("half the expected bandwidth between GPUs", "https://github.com/vllm-project/vllm/issues/41063"))
def links_whole(host: Host, asked: Asked) -> Problem | None:
    """Every NVLink is active, and on PCIe boards every lane is used."""
    pcie = asked.interconnect == "pcie"
    narrow = [g for g in served(host, asked) if g.nvlinks_down or (pcie and (g.width or 0) < (g.width_max or 0))]
    if not narrow:
        return None
    gpu = narrow[0]
    seen = f"has {gpu.nvlinks_down} NVLinks down" if gpu.nvlinks_down else f"uses {gpu.width} of {gpu.width_max} lanes"
    return _about(narrow, Problem(seen, "all of them", "reseat the GPU or its riser; see dmesg", fatal=False))


def served(host: Host, asked: Asked) -> list[Gpu]:
    """Return the GPUs that vLLM will take: the first of those that are visible."""
    driver = host.driver or Driver()
    return [driver.gpu(index) for index in host.visible.indexes[: asked.gpus] if not driver.gpu(index).error]


def _about(gpus: list[Gpu], problem: Problem) -> Problem | None:
    """Say which GPUs have the problem, and put their indexes where its fix says INDEX."""
    indexes = ",".join(str(gpu.index) for gpu in gpus)
    seen, fix = f"{_which(gpus)} {problem.seen}", problem.fix.replace("INDEX", indexes)
    return dataclasses.replace(problem, seen=seen, fix=fix) if gpus else None


def _which(gpus: list[Gpu]) -> str:
    return f"GPU {', '.join(str(gpu.index) for gpu in gpus)}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


CHECKS: tuple[Callable[[Host, Asked], Problem | None], ...] = (
    compute_capability,
    busy_gpu,
    mig_mode,
    compute_mode,
    fabric_manager,
    gpu_memory_errors,
    gpu_recovery,
    persistence,
    links_whole,
)
