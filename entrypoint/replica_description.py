"""The description of a replica that `/plan` returns and result files keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class _Open(BaseModel):
    """A model that accepts unknown keys."""

    model_config = ConfigDict(extra="allow")


class _Patch(BaseModel):
    name: str
    sha256: str
    state: str


class _Patches(_Open):
    patches: list[_Patch] = []


class _Gpu(_Open):
    name: str


class _Machine(_Open):
    gpus: list[_Gpu] = []


class _Setting(BaseModel):
    value: Any = None


class ReplicaDescription(BaseModel):
    """
    The plan's choices, command and settings, patches, versions and machine.

    Secrets are masked; unknown parts are absent.
    """

    choices: dict[str, Any] = {}
    argv: list[str] = []
    settings: dict[str, _Setting] = {}
    env: dict[str, Any] = {}
    patches: _Patches = _Patches()
    versions: dict[str, Any] = {}
    machine: _Machine = _Machine()

    def to_json(self) -> dict[str, Any]:
        """Return the known parts of `{"choices", "argv", "settings", "env", "patches", "versions", "machine"}`."""
        return self.model_dump(include=set(ReplicaDescription.model_fields), exclude_unset=True)


def flag_values(replica: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of vLLM's flags, by name, in a description as `to_json` gives it; empty where it has none."""
    others = {*(replica.get("choices") or {}), *(replica.get("env") or {})}
    return {
        name: setting["value"]
        for name, setting in (replica.get("settings") or {}).items()
        if name not in others and not name.startswith(("gate.", "supervise."))
    }


def gpus(machine: Mapping[str, Any]) -> list[str]:
    """Return how many GPUs of each name a described machine has, such as `2 x NVIDIA H200`; empty where it has none."""
    counts = Counter(gpu["name"] for gpu in machine.get("gpus") or ())
    return [f"{number} x {name}" for name, number in counts.items()]
