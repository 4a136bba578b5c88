"""
Results of measured kernels, in short, for qualification/results/kernels: each names hardware, driver, day and versions.

Of Humming's kernels: what it chose, what a table takes in its place, and what each took.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from qualification.gpu.expert_kernels import choose, schedules
from qualification.gpu.expert_kernels.layers import SUBLAYERS
from qualification.gpu.expert_kernels.measure import Row

One = TypeVar("One")
FIGURES = ("us", "spread", "gb_s", "share", "tflop_s")
"""Of one schedule: its median in µs, the spread as a share of that, GB/s, their share of a copy's, TFLOP/s."""


def add_step(steps: Any) -> argparse.ArgumentParser:
    """Add the step `keep` to a program, with what its rows do not say; return its parser."""
    step: argparse.ArgumentParser = steps.add_parser("keep")
    step.add_argument("rows", type=rows_file)
    step.add_argument("--out", type=Path, required=True)
    step.add_argument("--driver", required=True)
    step.add_argument("--date", type=day, required=True, help="when rows were measured")
    return step


def rows_file(text: str) -> Path:
    """Return the path of a file of rows, for argparse; refuse one that is not there, as no rows would be a result too."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}; name the one that `measure` was given with --out")
    return Path(text)


def day(text: str) -> str:
    """Return a day as 2026-11-30; raise ValueError for what is none."""
    return date.fromisoformat(text).isoformat()


def only(found: Iterable[One], what: str, file: Path) -> One:
    """Return the one thing that a file's rows are of; end where they are of none, or of several."""
    each = list(found)
    if len(each) != 1:
        raise SystemExit(f"{file}: its rows are of {len(each)} {what}, and a result is of one.")
    return each[0]


def head(options: argparse.Namespace, program: str, device: str, versions: Mapping[str, str]) -> dict[str, Any]:
    """Return what each result begins with; `options` are those of `keep`."""
    return {
        "program": program, "hardware": device, "gpus": 1, "driver": options.driver,
        "date": options.date, "versions": versions,
    }  # fmt: skip


def write(file: Path, result: Mapping[str, Any]) -> None:
    """Write a result, a line for each of its rows, which come last."""
    fields = "".join(f" {json.dumps(name)}: {json.dumps(value)},\n" for name, value in result.items() if name != "rows")
    rows = ",\n".join("  " + json.dumps(row) for row in result["rows"])
    file.write_text(f'{{\n{fields} "rows": [\n{rows}\n ]\n}}\n', encoding="utf-8")


def of_humming(rows: Sequence[Row], options: argparse.Namespace) -> dict[str, Any]:
    """Return the result of rows of both products of one format."""
    choice = only(choose.choices(rows), "formats with both products measured", options.rows)
    heads, sorting = choice.heads, choose.sorting(rows)
    gpus = {(one["device"], one["humming"]) for one in heads.values()}
    device, humming = only(gpus, "GPUs and versions of Humming", options.rows)
    each = {(row["layer"], row["tokens"], row["name"]): row for row in rows if "us" in row}
    again = {(row["layer"], row["tokens"]): row["again"] for row in rows if "again" in row}

    def of(sublayer: str, tokens: int) -> dict[str, Any]:
        layer, measured, taken = heads[sublayer]["layer"], choice.found[sublayer][tokens], choice.taken[sublayer]
        own = next(one.name for one in measured if one.own)
        names = {
            "own": own,
            "taken": schedules.name(taken[tokens]) if tokens in taken else own,
            "fastest": min(measured, key=lambda one: one.us).name,
        }
        found = {who: figures(each[layer, tokens, name]) for who, name in names.items()}
        return {**found, "own_again_us": again.get((layer, tokens))}

    return {
        **head(options, "qualification/gpu/expert_kernels", device, {"humming-kernels": humming, "vllm": options.vllm}),
        "format": choice.format, "ways": choice.ways,
        "layers": {sublayer: one["layer_config"] for sublayer, one in heads.items()},
        "tried": {sublayer: one["tried"] for sublayer, one in heads.items()},
        "not_run": {
            sublayer: sum("lost" in row and row["layer"] == one["layer"] for row in rows) for sublayer, one in heads.items()
        },
        "rows": [
            summed({"tokens": tokens, "sorting_us": sorting.get(tokens)}, {name: of(name, tokens) for name in SUBLAYERS})
            for tokens in choice.tokens
        ],
    }  # fmt: skip


def summed(row: dict[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with what both products took together, by Humming's choice and with the table."""
    sums = {f"{who}_us": round(sum(part[who]["us"] for part in parts.values()), 3) for who in ("own", "taken")}
    return {**row, **sums, "ratio": round(sums["taken_us"] / sums["own_us"], 4), **parts}


def figures(row: Row) -> dict[str, Any]:
    """Return a schedule's name with its figures."""
    return {"schedule": row["name"], **{name: row[name] for name in FIGURES}}
