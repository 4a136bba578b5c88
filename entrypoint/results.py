"""
Result files: what was measured, on what and when, as one JSON file each that is never overwritten.

The folders bench, smoke, eval, tune, qualify and canary hold those of `dsv4`. `qualification/results` of this
repository has more kinds: `layout` (constructed checkpoints, flat in the folder), `faults`, `fleet` and
`fleet-limits` (simulated), `fleet-pair` (replicas on GPUs).
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import plain_file
from .errors import ConfigError, HostError, listed
from .replica_description import ReplicaDescription
from .validation import sentence

KINDS = ("bench", "smoke", "eval", "tune", "qualify", "canary")
PUBLISHED = "PUBLISHED"
"""A file in a folder of results that the project published."""
FOLDER = "qualification"
"""The default folder for results."""
_OF_FLEETS = ("fleet", "fleet-limits", "fleet-pair")
_RECORDS = ("memory", "nodes", "community", "numerics", "contexts", "splits", "starts", "kernels")
"""Folders of what calibrations, lab programs and other people recorded, which `dsv4 report` does not show."""
_Count = Annotated[int, Field(ge=1)]
_Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Result(BaseModel):
    date: str
    replica: ReplicaDescription = ReplicaDescription()


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    batch: _Count
    input: _Count
    output: _Count
    output_tokens_per_second: _Figure
    tpot_p50: _Figure
    tpot_p99: _Figure
    ttft_p50: _Figure
    ttft_p99: _Figure
    acceptance: _Figure | None
    by_position: list[_Figure] = []
    good_share: Annotated[float, Field(ge=0, le=1)] | None = None
    request_goodput: _Figure | None = None
    history: Annotated[int, Field(ge=0)] = 0
    round: _Count = 1
    counted: Annotated[list[_Figure], Field(min_length=2, max_length=2)] | None = None
    cached_share: Annotated[float, Field(ge=0, le=1)] | None = None


class _Bench(_Result):
    subject: str
    goodput: dict[str, _Figure] = {}
    rows: list[_Row]


def write(folder: Path, kind: str, body: Mapping[str, Any]) -> Path:
    """
    Write `body`, with `kind` and `date` (UTC) added, to FOLDER/KIND/<subject>-<date>.json and return the path.

    Nothing is ever overwritten. Raise HostError where the folder cannot be written.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of result: {listed(KINDS)}")
    now = datetime.now(UTC)
    text = json.dumps({"kind": kind, "date": now.isoformat(timespec="seconds"), **body}, indent=2) + "\n"
    subject = re.sub(r"[^a-z0-9.]+", "-", str(body["subject"]).lower()).strip("-.")
    try:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            again = f"-{number}" if number > 1 else ""
            path = folder / kind / f"{subject}-{now:%Y%m%dT%H%M%SZ}{again}.json"
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
                return path
            except FileExistsError:
                continue
        raise HostError(f"{path}: 999 results with this timestamp already exist; choose another folder with --out.")
    except OSError as error:
        raise _unwritable(folder / kind, error) from None


def check_writable(folder: Path, kind: str) -> None:
    """Raise HostError where a result could not be written, as `write` does; leave nothing there."""
    target = folder / kind
    try:
        existing = next(path for path in (target, *target.parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise _unwritable(target, error) from None


def _unwritable(target: Path, error: OSError) -> HostError:
    return HostError(f"cannot write to {target} ({error.strerror}); choose another folder with --out.")


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the results in FOLDER, oldest first, as `read_one` does each; `published` are those of the project."""
    files = sorted(file for file in folder.rglob("*.json") if file.parent.name not in _RECORDS)
    marked = {mark.parent for mark in folder.rglob(PUBLISHED)}
    found = [{**read_one(file), "published": not marked.isdisjoint(file.parents)} for file in files]
    return sorted(found, key=lambda result: (result["date"], result["file"]))


def read_one(path: Path) -> dict[str, Any]:
    """Return the result in one file, with its path as `file`; raise ConfigError if it is not a result."""
    try:
        body = plain_file.parse_json(plain_file.read(path, 64))
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror}).") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not a result: it is not valid JSON ({error}); move it elsewhere.") from None
    kind = _kind(body)
    if kind is None:
        raise ConfigError(f"{path} is not a result: it has no known kind; move it elsewhere.")
    try:
        (_Bench if kind == "bench" else _Result).model_validate(body)
    except ValidationError as error:
        raise ConfigError(f"{path} is not a result of this version ({sentence(error)}); move it elsewhere.") from None
    return {**body, "kind": kind, "file": str(path)}


def _kind(body: Any) -> str | None:
    if not isinstance(body, dict):
        return None
    if body.get("kind") in (*KINDS, *_OF_FLEETS):
        return str(body["kind"])
    return next((kind for kind in ("layout", "faults") if kind in body), None)
