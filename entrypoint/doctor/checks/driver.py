"""The driver, and which of its GPUs a plan gets. Each check takes (Host, Asked)."""

from __future__ import annotations

from collections.abc import Callable

from ...machine.host import Host
from ...machine.requirements import Asked
from ...problem import Problem, Wild, check

DRIVER = 580
"""Least driver branch: vLLM 0.32.0's wheels hold CUDA 13.0, which came with 580 (NVIDIA, CUDA 13.0 release notes)."""

_NVML = "https://docs.nvidia.com/deploy/nvml-api/index.html"
_CUDA_NOTES = "https://docs.nvidia.com/cuda/archive/13.0.0/cuda-toolkit-release-notes/index.html"


@check(Wild("No NVIDIA driver answers in the container, though the host has one", _NVML, tried="recorded"))
def container_gpus(host: Host, asked: Asked) -> Problem | None:
    """The kernel module is loaded, and this container was not given the devices."""
    if not asked.gpus or not host.module or host.device_nodes:
        return None
    return Problem(
        f"driver {host.module} is loaded on the host, and /dev/nvidiactl is missing here",
        "the GPUs passed to the container",
        "start it with --gpus all (docker), --device nvidia.com/gpu=all (podman) or nvidia.com/gpu limits (Kubernetes)",
    )


@check(Wild("nvidia-smi: failed to initialize NVML: Driver/library version mismatch", _NVML, tried="for real"))
def driver_answers(host: Host, asked: Asked) -> Problem | None:
    """NVML can be reached."""
    if not host.driver or not host.driver.error or container_gpus(host, asked):
        return None
    mismatch = "mismatch" in host.driver.error.lower()
    fix = "reboot, or reload the nvidia module" if mismatch else "install NVIDIA's driver and container toolkit"
    return Problem(f"NVML answers: {host.driver.error}", f"an NVIDIA driver of branch {DRIVER} or newer", fix)


@check(
    Wild(
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12080)",
        "https://github.com/vllm-project/vllm/pull/33992",
        tried="constructed",
    )
)
def driver_version(host: Host, _asked: Asked) -> Problem | None:
    """The driver knows the CUDA that vLLM was built with, by itself or through a compatibility package."""
    driver = host.driver
    if not driver or not driver.version or max(_version(driver.version), _version(host.compat))[0] >= DRIVER:
        return None
    return Problem(
        f"driver {driver.version}, made for CUDA {driver.cuda // 1000}.{driver.cuda % 1000 // 10}",
        f"{DRIVER} or newer, for CUDA 13.0 ({_CUDA_NOTES})",
        "update the host's driver",
    )


@check(
    Wild(
        "Error 803: system has unsupported display driver / cuda driver combination",
        "https://github.com/gpustack/gpustack/issues/4678",
        tried="for real",
    )
)
def compat_library(host: Host, _asked: Asked) -> Problem | None:
    """No older libcuda of a compatibility package hides the driver's own."""
    version = host.driver.version if host.driver else ""
    if not host.compat or not version or _version(host.compat) >= _version(version):
        return None
    return Problem(
        f"LD_LIBRARY_PATH leads to a compatibility libcuda {host.compat}, older than driver {version}",
        "the driver's own libcuda first",
        "take the compat folder out of LD_LIBRARY_PATH",
    )


@check(Wild("GPUs after a wrong index are silently missing", "https://docs.nvidia.com/cuda/cuda-c-programming-guide/"))
def visible_devices(host: Host, _asked: Asked) -> Problem | None:
    """CUDA_VISIBLE_DEVICES names GPUs that exist."""
    if not host.driver or not host.driver.gpus or not host.visible.unknown:
        return None
    known = ", ".join(str(gpu.index) for gpu in host.driver.gpus)
    return Problem(
        f"CUDA_VISIBLE_DEVICES={host.visible.named}: no GPU is called {host.visible.unknown!r}",
        f"indexes among {known}, or UUIDs; CUDA ignores what follows a wrong one",
        "correct CUDA_VISIBLE_DEVICES",
    )


@check(
    Wild(
        "Detected different devices in the system ... set CUDA_DEVICE_ORDER=PCI_BUS_ID",
        "https://github.com/vllm-project/vllm/issues/15255",
    )
)
def device_order(host: Host, asked: Asked) -> Problem | None:
    """With several kinds of GPU, CUDA counts the fastest first unless told to count as the PCI bus does."""
    names = {gpu.name for gpu in host.driver.gpus} if host.driver else set()
    if len(names) < 2 or asked.env.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return None
    return Problem(
        f"different GPUs ({', '.join(sorted(names))}), counted fastest first by CUDA and by bus in nvidia-smi",
        "one order",
        "set CUDA_DEVICE_ORDER=PCI_BUS_ID",
    )


@check(Wild("torch.distributed: invalid device ordinal at tensor parallel size 4 with two GPUs", _NVML))
def gpu_count(host: Host, asked: Asked) -> Problem | None:
    """As many GPUs are visible as the plan asks for."""
    count = len(host.visible.indexes)
    if not host.driver or host.driver.error or count >= asked.gpus:
        return None
    return Problem(
        f"{count} {'GPU is' if count == 1 else 'GPUs are'} visible",
        f"{asked.gpus}",
        "lower --tp, or pass more GPUs",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit()) or (0,)


CHECKS: tuple[Callable[[Host, Asked], Problem | None], ...] = (
    container_gpus,
    driver_answers,
    driver_version,
    compat_library,
    visible_devices,
    device_order,
    gpu_count,
)
