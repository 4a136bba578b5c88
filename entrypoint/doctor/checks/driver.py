"""Check the driver, and which of its GPUs a plan gets."""

from __future__ import annotations

from ...machine.host import Host
from ...machine.requirements import HostRequirements
from ...problem import Problem, check

DRIVER = 580
"""Oldest driver branch: vLLM 0.32.0's wheels hold CUDA 13.0, which needs 580 (NVIDIA, CUDA 13.0 release notes)."""

_NVML = "https://docs.nvidia.com/deploy/nvml-api/index.html"
_CUDA_NOTES = "https://docs.nvidia.com/cuda/archive/13.0.0/cuda-toolkit-release-notes/index.html"
_INSTALL = "install NVIDIA's driver and container toolkit"
_RELOAD = "reboot, or reload the nvidia module"


@check(
    symptom="No NVIDIA driver responds in the container, although the host has one",
    link=_NVML,
    remedy="start the container with --gpus all (docker), --device nvidia.com/gpu=all (podman) or nvidia.com/gpu limits"
    " (Kubernetes)",
    tried="recorded",
)
def container_gpus(host: Host, _required: HostRequirements) -> Problem | None:
    """Where the kernel module is loaded, this container has the devices."""
    module = host.machine.kernel_module
    if not module or host.machine.device_nodes:
        return None
    return Problem(
        f"driver {module} is loaded on the host, but /dev/nvidiactl is missing in this container",
        "the GPUs passed to the container",
    )


@check(
    symptom="nvidia-smi: failed to initialize NVML: Driver/library version mismatch",
    link=_NVML,
    remedy=(_RELOAD, _INSTALL),
    tried="for real",
)
def driver_answers(host: Host, required: HostRequirements) -> Problem | None:
    """NVML can be reached."""
    error = host.machine.driver.error
    if not error or container_gpus(host, required):
        return None
    return Problem(
        f"NVML reports: {error}",
        f"an NVIDIA driver of branch {DRIVER} or newer",
        _RELOAD if "mismatch" in error.lower() else _INSTALL,
    )


@check(
    symptom="RuntimeError: The NVIDIA driver on your system is too old (found version 12080)",
    link="https://github.com/vllm-project/vllm/pull/33992",
    remedy="update the host's driver",
    tried="constructed",
)
def driver_version(host: Host, _required: HostRequirements) -> Problem | None:
    """The driver supports vLLM's CUDA version, by itself or through a compatibility package."""
    driver = host.machine.driver
    if not driver.version or max(_version(driver.version), _version(host.compat))[0] >= DRIVER:
        return None
    return Problem(
        f"driver {driver.version} supports CUDA {driver.cuda // 1000}.{driver.cuda % 1000 // 10}",
        f"driver {DRIVER} or newer, for CUDA 13.0 ({_CUDA_NOTES})",
    )


@check(
    symptom="Error 803: system has unsupported display driver / cuda driver combination",
    link="https://github.com/gpustack/gpustack/issues/4678",
    remedy="remove the compat folder from LD_LIBRARY_PATH",
    tried="for real",
)
def compat_library(host: Host, _required: HostRequirements) -> Problem | None:
    """No older libcuda of a compatibility package hides the driver's own."""
    version = host.machine.driver.version
    if not host.compat or not version or _version(host.compat) >= _version(version):
        return None
    return Problem(
        f"LD_LIBRARY_PATH leads to a compatibility libcuda {host.compat}, older than driver {version}",
        "the driver's own libcuda first",
    )


@check(
    symptom="GPUs after a wrong index are silently missing",
    link="https://docs.nvidia.com/cuda/cuda-c-programming-guide/",
    remedy="correct CUDA_VISIBLE_DEVICES",
    tried="constructed",
)
def visible_devices(host: Host, _required: HostRequirements) -> Problem | None:
    """CUDA_VISIBLE_DEVICES names GPUs that exist."""
    gpus, visible = host.machine.driver.gpus, host.machine.visible
    if not gpus or not visible.unknown:
        return None
    return Problem(
        f"CUDA_VISIBLE_DEVICES={visible.variable}: no GPU is named {visible.unknown!r}",
        f"indexes out of {', '.join(str(gpu.index) for gpu in gpus)}, or UUIDs; CUDA ignores all after a wrong one",
    )


@check(
    symptom="Detected different devices in the system ... set CUDA_DEVICE_ORDER=PCI_BUS_ID",
    link="https://github.com/vllm-project/vllm/issues/15255",
    remedy="set CUDA_DEVICE_ORDER=PCI_BUS_ID",
    tried="constructed",
)
def device_order(host: Host, required: HostRequirements) -> Problem | None:
    """With several models of GPU, CUDA_DEVICE_ORDER is PCI_BUS_ID; else CUDA counts the fastest first."""
    names = {gpu.name for gpu in host.machine.driver.gpus}
    if len(names) < 2 or required.env.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return None
    return Problem(
        f"GPUs of several models ({', '.join(sorted(names))}): CUDA counts the fastest first, nvidia-smi by bus",
        "the same order in both",
    )


@check(
    symptom="torch.distributed: invalid device ordinal at tensor parallel size 4 with two GPUs",
    link=_NVML,
    remedy="lower --tp, or pass more GPUs",
    tried="constructed",
)
def gpu_count(host: Host, required: HostRequirements) -> Problem | None:
    """As many GPUs are visible as the plan requires."""
    count = len(host.machine.visible.indexes)
    if host.machine.driver.error or count >= required.gpus:
        return None
    return Problem(f"{count} {'GPU is' if count == 1 else 'GPUs are'} visible", f"{required.gpus}")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit()) or (0,)
