"""What `/plan` answers: what this replica was told to do, and what it is made of."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...patcher.errors import PatcherError
from ...patcher.report import report
from ...patcher.series import locate, newest, read_series
from ...patcher.tree import open_tree
from ..machine.host import visible_gpus
from ..machine.nvml import read_driver
from ..plan import Plan

PARTS = ("dsv4-serve", "vllm", "torch", "flashinfer-python", "flashinfer-cubin", "fastsafetensors")


def replica(plan: Plan) -> dict[str, Any]:
    """Return the plan with secrets masked, the patch report of the installed vLLM, versions, and the machine."""
    chosen = {name: setting.value for name, setting in plan.choices.items()}
    made_of = {"patches": patches(), "versions": versions(), "machine": machine()}
    return {**plan.to_json(), "choices": chosen, **made_of}


@cache
def versions() -> dict[str, str]:
    """Return the versions of what is installed."""
    found = {"python": platform.python_version()}
    for part in PARTS:
        try:
            found[part] = version(part)
        except PackageNotFoundError:
            continue
    return found


@cache
def patches() -> dict[str, Any]:
    """Return what `dsv4 patch report` prints, or why there is none."""
    try:
        return report(open_tree(None), read_series(locate(newest())))
    except PatcherError as error:
        return {"error": str(error)}


@cache
def machine() -> dict[str, Any]:
    """Return the GPUs that this process may use (memory in MiB, as NVML counts it) with their driver, and the CPU."""
    driver = read_driver()
    visible = visible_gpus(driver, os.environ.get("CUDA_VISIBLE_DEVICES")).indexes
    gpus = [driver.gpu(index) for index in visible]
    return {
        "gpus": [{"name": gpu.name, "memory_mib": gpu.total >> 20} for gpu in gpus if not gpu.error],
        **({"driver": driver.version} if driver.version else {}),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
