"""Find out which of our patches the installed vLLM has."""

from __future__ import annotations

from functools import cache
from typing import Any

from ...patcher.errors import PatcherError
from ...patcher.report import report
from ...patcher.series import locate, newest, read_series
from ...patcher.tree import open_tree


@cache
def patch_report() -> dict[str, Any]:
    """Return what `dsv4 patch report` prints, or `{"error"}` where no vLLM can be read."""
    try:
        return report(open_tree(None), read_series(locate(newest())))
    except PatcherError as error:
        return {"error": str(error)}


def applied_patches() -> frozenset[str] | None:
    """Return the names of the applied patches; None where no vLLM can be read."""
    patches = patch_report().get("patches")
    return None if patches is None else frozenset(p["name"] for p in patches if p["state"] == "applied")


def has(patch: str) -> bool | None:
    """Tell whether the installed vLLM has a patch; None where no vLLM can be read."""
    applied = applied_patches()
    return None if applied is None else patch in applied
