"""What a replica is, as `/plan` answers it and result files keep it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Open(BaseModel):
    """What is read of an object that may hold more."""

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


class ReplicaDescription(BaseModel):
    """The plan's choices and command, patches, versions and machine; secrets are masked, unknown parts are absent."""

    choices: dict[str, Any] = {}
    argv: list[str] = []
    env: dict[str, Any] = {}
    patches: _Patches = _Patches()
    versions: dict[str, Any] = {}
    machine: _Machine = _Machine()

    def to_json(self) -> dict[str, Any]:
        """Return the known parts of `{"choices", "argv", "env", "patches", "versions", "machine"}`."""
        return self.model_dump(include=set(ReplicaDescription.model_fields), exclude_unset=True)
