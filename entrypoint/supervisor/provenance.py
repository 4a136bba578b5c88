"""Describe this replica for `/plan`: its plan, the code that it runs, and its machine."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..doctor import installed_patches
from ..machine.machine import Machine
from ..plan import Plan

PARTS = ("dsv4-serve", "vllm", "torch", "flashinfer-python", "flashinfer-cubin", "fastsafetensors")


def replica(plan: Plan, machine: Machine) -> dict[str, Any]:
    """Return the plan with secrets masked, the patch report of the installed vLLM, versions, and the machine."""
    choices = {name: setting.value for name, setting in plan.choices.items()}
    parts = {"patches": patches(), "versions": versions(), "machine": hardware(machine)}
    return {**plan.to_json(), "choices": choices, **parts}


@cache
def versions() -> dict[str, str]:
    """Return the versions of the installed packages."""
    installed = {"python": platform.python_version()}
    for part in PARTS:
        try:
            installed[part] = version(part)
        except PackageNotFoundError:
            continue
    return installed


def patches() -> dict[str, Any]:
    """Return what `dsv4 patch report` prints, or why there is no report."""
    return installed_patches.patch_report()


def hardware(machine: Machine) -> dict[str, Any]:
    """Return the GPUs that this process may use (memory in MiB, as NVML counts it) with their driver, and the CPU."""
    return {
        "gpus": [{"name": gpu.name, "memory_mib": gpu.total >> 20} for gpu in machine.gpus if not gpu.error],
        **({"driver": machine.driver.version} if machine.driver.version else {}),
        "cpu": machine.cpu,
        "cores": machine.cores,
    }
