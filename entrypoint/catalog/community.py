"""
Results that other people gave, as `dsv4 profiles` shows them; never mixed with our own figures.

`python -m tools.community write` makes community.json from `qualification/results/community/`, which is not installed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
FOLDER = "qualification/results/community"
Given = Mapping[str, Any]
"""A result as `shared_result.SharedResult` describes it, with the name of its file as `file`."""


def read() -> list[dict[str, Any]]:
    """Return all of them, the newest first."""
    return _parsed(FILE)


@functools.cache
def _parsed(file: Path) -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return given


def of(given: Iterable[Given], **conditions: Any) -> list[Given]:
    """Return those of one profile, model, kind of GPU or number of GPUs."""
    return [one for one in given if all(one[name] == value for name, value in conditions.items())]


def credit(one: Given) -> str:
    """Return who gave a result, and when: `community, NAME, DATE`."""
    return f"community, {one['who']}, {one['date']}"


def figures(one: Given) -> str:
    """Return the figures in a few words: speeds by batch, and what was proved."""
    speeds = [
        f"{row['output_tokens_per_second']:g} tok/s at batch {row['batch']} ({_shape(row)})" for row in one["rows"]
    ]
    checks = one["checks"]
    failed = [check["name"] for check in checks if check["verdict"] == "fail"]
    passed = sum(check["verdict"] == "pass" for check in checks)
    tried = f"{passed} of {passed + len(failed)} checks passed"
    proved = [f"{tried}, failed: {', '.join(failed)}" if failed else tried] if checks else []
    return "; ".join([*proved, *speeds])


def conditions(one: Given) -> str:
    """Return hardware, model, weights, versions and file."""
    gpus = f"{one['gpus']} x {one['hardware']}" if one["gpus"] else one["hardware"]
    driver = f", driver {one['driver']}" if one["driver"] else ""
    weights = "" if one["weights"] == "as served" else f" ({one['weights']})"
    return f"{gpus}{driver}, {one['model']}{weights}, vLLM {one['versions']['vllm']}; {FOLDER}/{one['file']}"


def short(one: Given) -> str:
    """Return the speed of the smallest batch for a narrow column: `95 for one, NAME`."""
    if not one["rows"]:
        return f"qualified, {one['who']}"
    row = min(one["rows"], key=lambda row: (row["batch"], row["input"]))
    return f"{row['output_tokens_per_second']:.0f} at batch {row['batch']}, {one['who']}"


def _shape(row: Mapping[str, Any]) -> str:
    return f"{row['input']} in, {row['output']} out"
