"""Which MoE backends `dsv4 qualify` found right on this machine: tune tries no others, since some garble under load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import results
from ..errors import ConfigError

STAGES = ("known-answers", "load", "numerics")
_FLAG = "--moe-backend"


def here(folder: Path, model: str, machine: Mapping[str, Any]) -> frozenset[str]:
    """Return the backends that passed with this model on such GPUs, by the results in a folder."""
    found = set[str]()
    for path in sorted((folder / "qualify").glob("*.json")):
        try:
            result = results.read_one(path)
        except ConfigError:
            continue  # of another version, or no result
        replica = result.get("replica", {})
        same = _gpus(replica.get("machine")) == _gpus(machine) and replica.get("choices", {}).get("model-name") == model
        if same and _passed(result.get("checks", [])):
            found.add(_backend(replica.get("argv", [])))
    return frozenset(found)


def why_not(backend: str, qualified: frozenset[str], profile: str, model: str) -> str:
    """Return why a backend is not tried; nothing if it is qualified."""
    if backend in qualified:
        return ""
    command = f"dsv4 qualify --profile {profile} --model {model} {_FLAG} {backend}"
    return f"not qualified on these GPUs: `{' --only '.join((command, *STAGES))}` first"


def _passed(checks: Any) -> bool:
    """Tell whether answers were known ones, and neither load nor numerics failed; one may not apply to a plan."""
    if not isinstance(checks, list) or not all(isinstance(check, Mapping) for check in checks):
        return False  # damaged
    verdicts = {check.get("name"): check.get("verdict") for check in checks}
    return verdicts.get(STAGES[0]) == "passed" and all(verdicts.get(name) in ("passed", "skipped") for name in STAGES)


def _backend(argv: Sequence[str]) -> str:
    return argv[argv.index(_FLAG) + 1] if _FLAG in argv[:-1] else ""


def _gpus(machine: Any) -> set[str]:
    return {gpu["name"] for gpu in machine.get("gpus", [])} if isinstance(machine, Mapping) else set()
