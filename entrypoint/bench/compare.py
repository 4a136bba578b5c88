"""Compare two results of `dsv4 bench`: ratios of their figures, and what differs between their replicas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from .. import results, text_table
from ..errors import ConfigError
from ..plan import plain
from ..replica_description import flag_values, gpus
from ..vllm_schema import argv
from . import goodput, measure, rounds

_HEADINGS = ("batch", "input", "output", "tok/s", "×", "TPOT p50 ms", "×", "TTFT p50 ms", "×")
_FIGURES = ("output_tokens_per_second", "tpot_p50", "ttft_p50")
_GOODPUT_HEADINGS = ("within limits", "within limits/s", "×")
_GOODPUT = ("good_share", "request_goodput")
NOISE = "±: half of the range that the ratio has between rounds"
Result = Mapping[str, Any]


def compare(first: Path, second: Path) -> dict[str, Any]:
    """
    Return `{"rows", "only", "differs"}` of two result files; raise UserError for a file of another kind.

    A row has `batch`, `history`, `input`, `output`, and for each figure `[first, second, second / first]`, the ratio
    None where the first is 0. Shares and rates of requests within limits are there if both files have the same limits.
    Where a file has a row several times, its figures are means, and `noise` has half of the range of each ratio.
    `only` has the shapes of the rows that the other file lacks: `[[of the first], [of the second]]`.
    """
    return compared(_read(first), _read(second))


def compared(a: Result, b: Result) -> dict[str, Any]:
    """Return the comparison of two results."""
    same_limits = a.get("goodput") and a.get("goodput") == b.get("goodput")
    names = (*_FIGURES, *_GOODPUT) if same_limits else _FIGURES
    firsts, seconds = rounds.by_shape(a["rows"]), rounds.by_shape(b["rows"])
    rows = [_row(same, seconds[shape], names) for shape, same in firsts.items() if shape in seconds]
    if not rows:
        raise ConfigError(f"{a['file']} and {b['file']} have no row with the same batch size, input and output.")
    only = [_lacked_by(seconds, firsts), _lacked_by(firsts, seconds)]
    return {"rows": rows, "only": only, "differs": dict(differences(a, b))}


def text(comparison: Mapping[str, Any]) -> str:
    """Return the comparison as a table, and one line for each thing that differs."""
    headings = (*_HEADINGS, *_GOODPUT_HEADINGS) if "good_share" in comparison["rows"][0] else _HEADINGS
    lines = [headings, *(tuple(_cells(row)) for row in comparison["rows"])]
    differs = [f"{name}: {pair[0]} -> {pair[1]}" for name, pair in comparison["differs"].items()]
    noise = [NOISE] if any("noise" in row for row in comparison["rows"]) else []
    only = [
        f"only in the {which}: {'; '.join(map(_named, rows))}"
        for which, rows in zip(("first", "second"), comparison["only"], strict=True)
        if rows
    ]
    return "\n".join([text_table.table(lines), *noise, *only, "", *(differs or ["nothing else differs"])])


def text_of_engines(found: Sequence[Result], comparison: Mapping[str, Any]) -> str:
    """Return the results of two engines that were measured in turn, and the second as a multiple of the first."""
    parts = [*map(measure.text, found), f"{found[1]['subject']} / {found[0]['subject']}"]
    return "\n\n".join([*parts, f"{text(comparison)}\n\n{summary(comparison)}"])


def summary(comparison: Mapping[str, Any]) -> str:
    """Return a sentence with the mean ratio of the output speeds, the lowest, and how many noise can explain."""
    pairs = [(row["output_tokens_per_second"][2], row) for row in comparison["rows"]]
    ratios = [(ratio, row) for ratio, row in pairs if ratio]
    if not ratios:
        return "No output speed can be compared."
    lowest, row = min(ratios, key=lambda pair: pair[0])
    level = [one for ratio, one in ratios if abs(ratio - 1) <= one.get("noise", {}).get("output_tokens_per_second", 0)]
    return (
        f"Output speed: x {geometric_mean(ratio for ratio, _ in ratios):.2f} as a geometric mean of {len(ratios)} rows,"
        f" x {lowest:.2f} at least (batch {row['batch']}, {measure.prompt(row)} tokens in);"
        f" {len(level)} rows differ by no more than the noise."
    )


def differences(a: Result, b: Result) -> Iterator[tuple[str, list[str]]]:
    """Yield what differs between two results' weights, machines, versions, patches, choices, flags and variables."""
    plans = [
        bool(result.get("replica", {}).get("settings") or result.get("replica", {}).get("argv")) for result in (a, b)
    ]
    if any(plans) and not all(plans):
        yield "plan", ["known" if known else "unknown" for known in plans]
        a, b = _without_plan(a), _without_plan(b)
    first, second = _facts(a), _facts(b)
    for name in [*first, *(name for name in second if name not in first)]:
        if first.get(name) != second.get(name):
            yield name, [first.get(name, "-"), second.get(name, "-")]


def _lacked_by(
    others: Mapping[rounds.Shape, Any], rows: Mapping[rounds.Shape, Sequence[Result]]
) -> list[dict[str, Any]]:
    return [_shape(same[0]) for shape, same in rows.items() if shape not in others]


def _shape(row: Result) -> dict[str, Any]:
    return {name: row.get(name, 0) for name in ("batch", "history", "input", "output")}


def _named(row: Result) -> str:
    return f"batch {row['batch']}, {measure.prompt(row)} tokens in, {row['output']} out"


def _without_plan(result: Result) -> Result:
    replica = result.get("replica") or {}
    return {**result, "replica": {name: replica[name] for name in ("machine", "versions") if name in replica}}


def _facts(result: Result) -> dict[str, str]:
    replica = result.get("replica") or {}
    machine = replica.get("machine") or {}
    absent = "-" if machine else "unknown"
    facts = {
        "weights": result.get("weights") or "unknown",
        "ended early": result.get("failed") or "-",
        "GPUs": " + ".join(gpus(machine)) or result.get("hardware") or absent,
    }
    if limits := result.get("goodput"):
        facts["limits"] = goodput.described(limits)
    facts |= {name: machine.get(name) or absent for name in ("driver", "cpu")}
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
    if result["kind"] != "bench":
        raise ConfigError(f"{path} is a result of `{result['kind']}`; name one of `dsv4 bench`.")
    if not result["rows"]:
        why = str(result.get("failed") or "nothing was measured").rstrip(".")
        raise ConfigError(f"{path} has no rows ({why}); name another result.")
    return result


def _row(firsts: Sequence[Result], seconds: Sequence[Result], names: Iterable[str]) -> dict[str, Any]:
    [first], [second] = rounds.means(firsts), rounds.means(seconds)
    figures: dict[str, Any] = {name: [first[name], second[name], _ratio(first[name], second[name])] for name in names}
    noise = {name: rounds.noise([row[name] for row in firsts], [row[name] for row in seconds]) for name in names}
    if any(half is not None for half in noise.values()):
        figures["noise"] = noise
    return {**_shape(first), **figures}


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
        half = row.get("noise", {}).get(name)
        yield "-" if ratio is None else f"{ratio:.2f}" + (f" ± {half:.2f}" if half is not None else "")
