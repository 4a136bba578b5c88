"""Compare two results of `dsv4 bench`: ratios of their figures, and what differs between their replicas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import dropwhile
from pathlib import Path
from typing import Any

from .. import results, text_table
from ..errors import ConfigError
from ..plan import plain
from ..replica_description import flag_values
from ..vllm_schema import argv
from . import goodput, measure

_HEADINGS = ("batch", "input", "output", "tok/s", "×", "TPOT p50 ms", "×", "TTFT p50 ms", "×")
_FIGURES = ("output_tokens_per_second", "tpot_p50", "ttft_p50")
_GOODPUT_HEADINGS = ("within limits", "within limits/s", "×")
_GOODPUT = ("good_share", "request_goodput")
Result = Mapping[str, Any]


def compare(first: Path, second: Path) -> dict[str, Any]:
    """
    Return `{"rows", "differs"}` of two result files; raise UserError for a file of another kind.

    A row has `batch`, `history`, `input`, `output`, and for each figure `[first, second, second / first]`, the ratio
    None where the first is 0. Shares and rates of requests within limits are there if both files have the same limits.
    """
    a, b = _read(first), _read(second)
    same_limits = a.get("goodput") and a.get("goodput") == b.get("goodput")
    names = (*_FIGURES, *_GOODPUT) if same_limits else _FIGURES
    rows = [_row(row, other, names) for row in a["rows"] for other in b["rows"] if _shape(row) == _shape(other)]
    if not rows:
        raise ConfigError(f"{first} and {second} have no row with the same batch size, input and output.")
    return {"rows": rows, "differs": dict(differences(a, b))}


def text(comparison: Mapping[str, Any]) -> str:
    """Return the comparison as a table, and one line for each thing that differs."""
    headings = (*_HEADINGS, *_GOODPUT_HEADINGS) if "good_share" in comparison["rows"][0] else _HEADINGS
    lines = [headings, *(tuple(_cells(row)) for row in comparison["rows"])]
    differs = [f"{name}: {pair[0]} -> {pair[1]}" for name, pair in comparison["differs"].items()]
    return "\n".join([text_table.table(lines), "", *(differs or ["nothing else differs"])])


def differences(a: Result, b: Result) -> Iterator[tuple[str, list[str]]]:
    """Yield what differs between two results' weights, machines, versions, patches, choices, flags and variables."""
    first, second = _facts(a), _facts(b)
    for name in [*first, *(name for name in second if name not in first)]:
        if first.get(name) != second.get(name):
            yield name, [first.get(name, "-"), second.get(name, "-")]


def _facts(result: Result) -> dict[str, str]:
    replica = result.get("replica") or {}
    machine = replica.get("machine") or {}
    gpus = [gpu["name"] for gpu in machine.get("gpus", ())]
    facts = {
        "weights": result.get("weights", ""),
        "GPUs": " + ".join(f"{gpus.count(g)} x {g}" for g in dict.fromkeys(gpus)),
    }
    if limits := result.get("goodput"):
        facts["limits"] = goodput.described(limits)
    facts |= {name: machine.get(name, "") for name in ("driver", "cpu")}
    facts |= {f"version of {name}": version for name, version in (replica.get("versions") or {}).items()}
    facts |= {
        f"patch {patch['name']}": patch["sha256"][:12] for patch in (replica.get("patches") or {}).get("patches", ())
    }
    facts |= {name: str(value) for name, value in (replica.get("choices") or {}).items()}
    facts |= {f"--{name}": _shown(value) for name, value in _flags(replica).items()}
    return facts | {name: str(value) for name, value in (replica.get("env") or {}).items()}


def _flags(replica: Mapping[str, Any]) -> dict[str, Any]:
    """Return vLLM's flags by name, except for the model's path, which differs between hosts."""
    if "settings" in replica:
        return {name: value for name, value in flag_values(replica).items() if name != "model" and value is not None}
    # Results from before 2026-12 hold only the command.
    return plain(argv.read(list(dropwhile(lambda argument: not argument.startswith("--"), replica.get("argv") or ()))))


def _shown(value: Any) -> str:
    if value is True:
        return "set"
    return json.dumps(value, separators=(",", ":")) if isinstance(value, (dict, list)) else str(value)


def _read(path: Path) -> Result:
    result = results.read_one(path)
    if result["kind"] != "bench" or not result["rows"]:
        raise ConfigError(f"{path} is a result of `{result['kind']}`; name one of `dsv4 bench`.")
    return result


def _shape(row: Result) -> tuple[int, int, int, int]:
    return row["batch"], row["input"], row["output"], row.get("history", 0)


def _row(first: Result, second: Result, names: Iterable[str]) -> dict[str, Any]:
    figures = {name: [first[name], second[name], _ratio(first[name], second[name])] for name in names}
    return {**{name: first.get(name, 0) for name in ("batch", "history", "input", "output")}, **figures}


def _ratio(first: float, second: float) -> float | None:
    return second / first if first else None


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    yield from (str(row["batch"]), measure.prompt(row), str(row["output"]))
    yield from _pairs(row, _FIGURES)
    if "good_share" in row:
        first, second, _ = row["good_share"]
        yield f"{first:.1%} -> {second:.1%}"
        yield from _pairs(row, ("request_goodput",))


def _pairs(row: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    for name in names:
        first, second, ratio = row[name]
        yield f"{first:.2f} -> {second:.2f}"
        yield "-" if ratio is None else f"{ratio:.2f}"
