"""Say for each kernel family whether a start will find its kernels: hit, or miss and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .place import NINJA, Placed

_OF_DRIVER = "cuda"


@dataclass(frozen=True)
class FamilyState:
    """The kernels of one compiler after an import."""

    family: str
    files: int
    size: int
    written: int
    miss: str = ""
    """Why this host compiles them again all the same; empty where it does not."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        state = {"hit": False, "why": self.miss} if self.miss else {"hit": True}
        return {"family": self.family, "files": self.files, "bytes": self.size, "written": self.written, **state}


def families(placed: Placed, driver: str) -> list[FamilyState]:
    """Return the state of each family; `driver` is this host's version, empty where it has none."""
    written = {file.path for file in placed.written}
    return [
        FamilyState(
            family,
            len(files),
            sum(file.size for file in files),
            sum(file.path in written for file in files),
            _miss(family, placed, driver),
        )
        for family, files in placed.manifest.families().items()
    ]


def plan_line(placed: Placed, fingerprint: str, filled: Mapping[str, Any]) -> str:
    """Return whether this very plan is among those that the pack was filled by."""
    plans = placed.manifest.plans
    if fingerprint in plans:
        return f"this plan: hit; its first start took {plans[fingerprint]:.0f} s where the pack was made"
    if filled:
        return "this plan: hit by an earlier start on this host; the pack was filled by other plans"
    return f"this plan: miss; the pack was filled by {len(plans)} other plans; the rest will be compiled"


def _miss(family: str, placed: Placed, driver: str) -> str:
    manifest = placed.manifest
    if family == NINJA and manifest.root != str(placed.folder):
        return f"built in {manifest.root}; FlashInfer builds again in another folder"
    if family == _OF_DRIVER and driver and driver != manifest.driver:
        return f"compiled by driver {manifest.driver or 'unknown'}; {driver} compiles again"
    return ""
