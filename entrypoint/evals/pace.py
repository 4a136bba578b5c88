"""Estimate how fast a machine answers, from the results of `dsv4 bench`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import results


def measured(folder: Path, concurrency: int, replica: Mapping[str, Any]) -> tuple[float, str] | None:
    """
    Return output tokens per second at this concurrency, and where that was measured.

    It is the newest result of the same model on the same GPUs, at the largest batch that is not above `concurrency`;
    None where there is none.
    """
    for result in reversed(results.read(folder / "bench")):
        if result["kind"] == "bench" and _same(result.get("replica", {}), replica):
            rows = sorted(result["rows"], key=lambda row: row["batch"])
            fitting = [row for row in rows if row["batch"] <= concurrency] or rows[:1]
            if fitting:
                where = f"batch {fitting[-1]['batch']} in {Path(result['file']).name}"
                return float(fitting[-1]["output_tokens_per_second"]), where
    return None


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(
        one.get(part, {}).get(name) == other.get(part, {}).get(name)
        for part, name in (("choices", "model-name"), ("machine", "gpus"))
    )
