"""
Receipts: what was measured, of what, on what, and when; one JSON file each, written once.

FOLDER/bench, FOLDER/smoke and FOLDER/eval hold those of `dsv4`. The qualification folder of this repository has more
kinds: `layout` (constructed checkpoints, flat in the folder), `faults`, `fleet` and `fleet-limits` (simulated).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsv4_serve.entrypoint import endpoint
from dsv4_serve.entrypoint.errors import HostError, UserError, listed

KINDS = ("bench", "smoke", "eval")
FOLDER = "qualification"
"""The folder for receipts where none is named."""
_OF_FLEETS = ("fleet", "fleet-limits")
_OF_A_REPLICA = ("choices", "argv", "env", "patches", "versions", "machine")
_OF_A_PATCH = ("name", "sha256", "state")


def of_replica(health_url: str, key: str | None) -> dict[str, Any]:
    """
    Return what a replica is: `{"choices", "argv", "env", "patches", "versions", "machine"}`, secrets masked.

    It is asked at `/plan` of its health server. Raise NoAnswer, a UserError, when that does not answer.
    """
    plan = endpoint.plan(health_url, key)
    patches = dict(plan.get("patches") or {})
    if "patches" in patches:
        patches["patches"] = [{part: one.get(part) for part in _OF_A_PATCH} for one in patches["patches"]]
    return {part: plan.get(part, {}) for part in _OF_A_REPLICA} | {"patches": patches}


def write(folder: Path, kind: str, body: Mapping[str, Any]) -> Path:
    """
    Write `body`, with `kind` and `date` (UTC) added, to FOLDER/KIND/<subject>-<date>.json and return the path.

    Nothing is ever overwritten. Raise HostError where the folder cannot be written.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of receipt: {listed(KINDS)}")
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
        raise HostError(f"{path}: a thousand receipts of one second are there; name another folder with --out.")
    except OSError as error:
        raise HostError(f"{folder / kind}: cannot be written ({error.strerror}); name another with --out.") from None


def read(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """
    Return the receipts in FOLDER, oldest first, each with its path as `file`; those of one kind where it is named.

    Raise UserError for a file that is no receipt.
    """
    found = [one for path in sorted(folder.rglob("*.json")) if kind in (None, (one := read_one(path))["kind"])]
    return sorted(found, key=lambda one: (one["date"], one["file"]))


def read_one(path: Path) -> dict[str, Any]:
    """Return the receipt in one file, with its path as `file`; raise UserError when it is none."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise UserError(f"{path}: no receipt, it is not JSON ({error}); move it away.") from None
    kind = _kind(body)
    if not kind or not isinstance(body.get("date"), str):
        raise UserError(f"{path}: no receipt, it has no kind and date of one; move it away.")
    return {**body, "kind": kind, "file": str(path)}


def _kind(body: Any) -> str | None:
    if not isinstance(body, dict):
        return None
    if body.get("kind") in (*KINDS, *_OF_FLEETS):
        return str(body["kind"])
    return next((kind for kind in ("layout", "faults") if kind in body), None)
