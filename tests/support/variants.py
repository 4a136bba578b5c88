"""What a variant of qualification/gpu/*.toml serves with, as it resolves on H200."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.plan import plain
from qualification.gpu import speed, variants


def settings(monkeypatch: pytest.MonkeyPatch, file: Path, name: str, gpus: int) -> dict[str, Any]:
    """Return the flags and variables of a variant on so many GPUs."""
    [variant] = variants.read(file, gpus, [name])
    with monkeypatch.context() as patch:
        patch.setenv("HARDWARE", "h200")
        for key, value in variant["env"].items():
            patch.setenv(key, value)
        plan = speed.resolved(variant)[-1]
        return plain(plan.flags) | {key: setting.value for key, setting in plan.env.items()}


def changes(plan: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    """Return what a variant sets otherwise than the plan; None for what it leaves out."""
    return {key: variant.get(key) for key in plan | variant if plan.get(key) != variant.get(key)}
