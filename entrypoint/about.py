"""What `/plan` answers: what this replica was told to do, and what it is made of."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dsv4_serve.entrypoint.plan import Plan
from dsv4_serve.patcher.errors import PatcherError
from dsv4_serve.patcher.report import report
from dsv4_serve.patcher.series import locate, newest, read_series
from dsv4_serve.patcher.tree import open_tree

PARTS = ("dsv4-serve", "vllm", "torch", "flashinfer-python", "flashinfer-cubin", "fastsafetensors")


def replica(plan: Plan) -> dict[str, Any]:
    """Return the plan with secrets masked, the patch report of the installed vLLM, and versions."""
    return {**plan.to_json(), "patches": patches(), "versions": versions()}


def versions() -> dict[str, str]:
    """Return the versions of what is installed."""
    found = {"python": platform.python_version()}
    for part in PARTS:
        try:
            found[part] = version(part)
        except PackageNotFoundError:
            continue
    return found


def patches() -> dict[str, Any]:
    """Return what `dsv4 patch report` prints, or why there is none."""
    try:
        return report(open_tree(None), read_series(locate(newest())))
    except PatcherError as error:
        return {"error": str(error)}
