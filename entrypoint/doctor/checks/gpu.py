"""Check each GPU that a plan gets: architecture, memory, modes, health."""

from __future__ import annotations

import dataclasses
import math

from ...catalog import unsupported
from ...machine.host import Host
from ...machine.nvml import Gpu
from ...machine.requirements import HostRequirements
from ...problem import Problem, check

CONTEXT = round(1.07 * 2**30)
"""What CUDA and vLLM allocate before vLLM measures: 95.01 GiB, 93.94 free (RTX PRO 6000, third-party log, 2026)."""

_SHARE = 0.98
"""Of a hardware file's memory, what a GPU must have: the driver reserves a little more on some."""

_UNNAMED = "leave out --hardware (HARDWARE), so that the GPUs are read, or select others with CUDA_VISIBLE_DEVICES"
_NVML = "https://docs.nvidia.com/deploy/nvml-api/index.html"
_LOWER = "end the other processes, or set GPU_MEMORY_UTILIZATION={share:.2f}"
_MIG_OFF = "nvidia-smi -i {gpus} -mig 0"
_DEFAULT_MODE = "nvidia-smi -i {gpus} -c DEFAULT"
_RESET_OR_REPLACE = "reset it (nvidia-smi -r -i {gpus}); replace it if a row remapping failed"
_RESET = "reset it (nvidia-smi -r -i {gpus}) or reboot the host, or exclude it from CUDA_VISIBLE_DEVICES"


@check(
    symptom="Unsupported architecture for sparse decode fwd",
    link="https://github.com/vllm-project/vllm/pull/41834",
    remedy=_UNNAMED,
    failures=(38,),
    tried="constructed",
)
def compute_capability(host: Host, required: HostRequirements) -> Problem | None:
    """The GPUs' architecture is the hardware file's, and one that vLLM has DeepSeek-V4 kernels for."""
    supported = [one for one in unsupported.SERVED if required.capability in (one, "")]
    others = [gpu for gpu in served(host, required) if gpu.capability and gpu.capability not in supported]
    if not others:
        return None
    hardware = f" ({required.hardware})" if required.capability and supported else ""
    seen = f"{_named(others)}: {others[0].name}, SM {others[0].capability}"
    return Problem(seen, f"SM {', '.join(supported or unsupported.SERVED)}{hardware}")


@check(
    symptom="No available memory for the cache blocks, on a GPU with less memory than its name says",
    link=_NVML,
    remedy=_UNNAMED,
    tried="constructed",
)
def gpu_memory(host: Host, required: HostRequirements) -> Problem | None:
    """Each GPU has the memory that the plan counts with."""
    needed = _SHARE * (required.memory_gib or 0) * 2**30
    short = [gpu for gpu in served(host, required) if gpu.total - gpu.reserved < needed]
    if not short:
        return None
    return Problem(
        f"{_named(short)}: {short[0].name}, {_gib(short[0].total - short[0].reserved)}",
        f"{required.memory_gib:g} GiB, as {required.hardware} has",
    )


@check(
    symptom="Free memory on device ... is less than desired GPU memory utilization",
    link=_NVML,
    remedy=_LOWER,
    failures=(42,),
    tried="constructed",
)
def busy_gpu(host: Host, required: HostRequirements) -> Problem | None:
    """Each GPU has the free memory that vLLM allocates once CUDA has started."""

    def needed(gpu: Gpu) -> int:
        return int(required.utilization * (gpu.total - gpu.reserved)) + CONTEXT

    short = [gpu for gpu in served(host, required) if gpu.free < needed(gpu)]
    if not short:
        return None
    worst = min(short, key=lambda gpu: gpu.free)
    holders = ", ".join(f"pid {p.pid}" + (f" {_gib(p.used)}" if p.used else "") for p in worst.processes)
    share = max(math.floor(100 * (worst.free - CONTEXT) / (worst.total - worst.reserved)) / 100, 0.0)
    return Problem(
        f"{_named(short)}: {_gib(worst.free)} of {_gib(worst.total)} free"
        + (f", held by {holders}" if holders else ""),
        f"{_gib(needed(worst))} (gpu-memory-utilization {required.utilization}, plus {_gib(CONTEXT)} for CUDA itself)",
        _LOWER.format(share=share),
    )


@check(
    symptom="ValueError: invalid literal for int() with base 10: 'MIG-...'",
    link="https://github.com/vllm-project/vllm/issues/41848",
    remedy=_MIG_OFF,
    tried="constructed",
)
def mig_mode(host: Host, required: HostRequirements) -> Problem | None:
    """No GPU is split by MIG: an instance is too small for DeepSeek-V4, and NCCL cannot join instances."""
    split = [gpu for gpu in served(host, required) if gpu.mig]
    parts = ", ".join(f"{one.name} {_gib(one.total)}" for gpu in split[:1] for one in gpu.instances)
    return _of_gpus(split, Problem(f"is split by MIG{f' ({parts})' if parts else ''}", "a whole GPU", _MIG_OFF))


@check(
    symptom="CUDA error: all CUDA-capable devices are busy or unavailable",
    link=_NVML,
    remedy=_DEFAULT_MODE,
    tried="constructed",
)
def compute_mode(host: Host, required: HostRequirements) -> Problem | None:
    """The GPU's compute mode lets programs use it."""
    prohibited = [gpu for gpu in served(host, required) if gpu.compute_mode == "prohibited"]
    return _of_gpus(prohibited, Problem("is in compute mode prohibited", "compute mode default", _DEFAULT_MODE))


@check(
    symptom="Error 802: system not yet initialized",
    link="https://github.com/huggingface/huggingface_hub/issues/4134",
    remedy="start nvidia-fabricmanager on the host, in the same version as the driver",
    tried="constructed",
)
def fabric_manager(host: Host, required: HostRequirements) -> Problem | None:
    """On NVSwitch boards the fabric is up; CUDA does not start without it."""
    waiting = [gpu for gpu in served(host, required) if gpu.fabric in ("not started", "in progress")]
    return _of_gpus(waiting, Problem("waits for the NVLink fabric", "fabric state completed"))


@check(
    symptom="Xid 63 and 64: row remapping failed; CUDA error: uncorrectable ECC error encountered",
    link="https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/error-recovery-and-response-flags.html",
    remedy=_RESET_OR_REPLACE,
    tried="constructed",
)
def gpu_memory_errors(host: Host, required: HostRequirements) -> Problem | None:
    """The GPU's memory is sound: no failed row remapping, no uncorrectable error since the driver was loaded."""
    faulty = [gpu for gpu in served(host, required) if gpu.remap_failed or gpu.uncorrected]
    seen = "has memory errors (uncorrectable, or a failed row remapping)"
    return _of_gpus(faulty, Problem(seen, "a GPU without memory errors", _RESET_OR_REPLACE))


@check(
    symptom="Xid 79: GPU has fallen off the bus; GPU is lost; GPU requires reset",
    link="https://docs.nvidia.com/deploy/xid-errors/index.html",
    remedy=_RESET,
    tried="constructed",
)
def gpu_recovery(host: Host, _required: HostRequirements) -> Problem | None:
    """The driver can read every visible GPU, and none needs a reset."""
    faulty = [gpu for gpu in host.machine.gpus if gpu.error or gpu.recovery not in (None, "none")]
    if not faulty:
        return None
    reason = faulty[0].error or f"the driver requests {faulty[0].recovery}"
    return _of_gpus(faulty, Problem(f"is unusable: {reason}", "GPUs without a pending recovery", _RESET))


@check(
    symptom="the first CUDA call takes seconds for each GPU, at every start",
    link="https://docs.nvidia.com/deploy/driver-persistence/persistence-daemon.html",
    remedy="systemctl enable --now nvidia-persistenced on the host",
    tried="constructed",
)
def persistence(host: Host, required: HostRequirements) -> Problem | None:
    """The driver keeps idle GPUs initialized."""
    idle = [gpu for gpu in served(host, required) if gpu.persistence is False]
    seen = "is not kept initialized (persistence mode is off): starts are slower"
    return _of_gpus(idle, Problem(seen, "nvidia-persistenced on the host", fatal=False))


@check(
    symptom="half the expected bandwidth between GPUs",
    link="https://github.com/vllm-project/vllm/issues/41063",
    remedy="reseat the GPU or its riser; see dmesg",
    tried="constructed",
)
def links_whole(host: Host, required: HostRequirements) -> Problem | None:
    """Every NVLink is active, and on PCIe boards every lane is used."""
    pcie = required.interconnect == "pcie"
    narrow = [g for g in served(host, required) if g.nvlinks_down or (pcie and (g.width or 0) < (g.width_max or 0))]
    if not narrow:
        return None
    gpu = narrow[0]
    seen = f"has {gpu.nvlinks_down} NVLinks down" if gpu.nvlinks_down else f"uses {gpu.width} of {gpu.width_max} lanes"
    return _of_gpus(narrow, Problem(seen, "all of them", fatal=False))


def served(host: Host, required: HostRequirements) -> list[Gpu]:
    """Return the GPUs that vLLM will take: the first of those that are visible."""
    return [gpu for gpu in host.machine.gpus[: required.gpus] if not gpu.error]


def _of_gpus(gpus: list[Gpu], problem: Problem) -> Problem | None:
    """Name the GPUs in the problem and its fix; return None when there are none."""
    if not gpus:
        return None
    fix = problem.fix.format(gpus=",".join(str(gpu.index) for gpu in gpus))
    return dataclasses.replace(problem, seen=f"{_named(gpus)} {problem.seen}", fix=fix)


def _named(gpus: list[Gpu]) -> str:
    return f"GPU {', '.join(str(gpu.index) for gpu in gpus)}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
