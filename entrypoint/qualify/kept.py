"""Keep what was finished, so that a run that was interrupted goes on: one file for each plan digest."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from .. import plain_file
from ..fingerprint import fingerprint
from ..plan import Plan
from ..smoke.outcome import Outcome
from ..supervisor import atomic_file

log = logging.getLogger(__name__)

_MIB = 64
_Outcomes = TypeAdapter(list[Outcome])
FINISHED: tuple[Literal["passed", "skipped"], ...] = ("passed", "skipped")
"""Verdicts that hold for the next run; what failed is tried again."""


def digest(plan: Plan, replica: Mapping[str, Any]) -> str:
    """Return what names a plan on this machine, with the code that serves it: 16 hexadecimal digits."""
    code = [(patch["name"], patch["sha256"], patch["state"]) for patch in replica["patches"].get("patches", [])]
    return fingerprint(plan.argv(), plan.environment(), replica["versions"], code, replica["machine"])


def file(folder: Path, name: str) -> Path:
    """Return the file of a digest."""
    return folder / f"unfinished-{name}.json"


def read(path: Path) -> dict[str, Outcome]:
    """Return the stages that an interrupted run finished; none where there is no readable file."""
    try:
        outcomes = _Outcomes.validate_json(plain_file.read(path, _MIB))
    except (OSError, ValidationError):
        return {}
    return {outcome.name: outcome for outcome in outcomes if outcome.verdict in FINISHED}


def write(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Keep the stages that are finished."""
    finished = [dataclasses.asdict(outcome) for outcome in outcomes if outcome.verdict in FINISHED]
    if not atomic_file.write(path, json.dumps(finished)):
        log.warning(f"cannot write {path}: if this run is interrupted, its stages are lost; is the disk full?")


def forget(path: Path) -> None:
    """Remove the file of a run that came to its end."""
    path.unlink(missing_ok=True)
