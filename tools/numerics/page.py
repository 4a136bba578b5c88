"""Make the tables of docs/results/numerics.md from the results files (`python -m tools.numerics.page`)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsv4_serve.demo.numerics import compare, golden
from tools.tables import renewed

from . import narrowed
from .reference_faults import RESULT

PAGE = Path(__file__).parents[2] / "docs" / "results" / "numerics.md"


def page(text: str) -> str:
    """Return the text of the page with its tables made from the results."""
    faults, kinds = (json.loads(file.read_text(encoding="utf-8")) for file in (RESULT, narrowed.RESULT))
    return renewed(text, {"numerics": rows(faults), "narrowed": in_fp8(kinds)}, PAGE)


def rows(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one row for each fault."""
    lines = ["| fault | put into | noticed | by | with the limits of GPUs |", "|---|---|---|---|---|"]
    for name, entry in found.items():
        noticed, reasons = "yes" if entry["noticed"] else "**no**", entry["reasons"]
        first = reasons[0].rstrip(".").replace(", and ", "; ") if reasons else ""
        lines.append(f"| {entry['fault']} | {entry['in']} | {noticed} | {first} | {on_gpus(name, entry['figures'])} |")
    return "\n".join(lines) + "\n"


def in_fp8(found: Mapping[str, Mapping[str, float]]) -> str:
    """Return one row for each kind of layer."""
    prompts = ("short", "middle", "long")
    lines = [
        f"| in FP8 | {' | '.join(f'{name}: median, clear' for name in prompts)} | draft, median: {', '.join(prompts)} |"
    ]
    lines.append("|---|---|---|---|---|")
    for kind, figures in found.items():
        cells = [f"{figures[f'{name} median']:.3f}, {figures[f'{name} clear']:.3f}" for name in prompts]
        drafts = ", ".join(f"{figures[f'{name}/draft median']:.3f}" for name in prompts)
        lines.append(f"| {kind} | {' | '.join(cells)} | {drafts} |")
    return "\n".join(lines) + "\n"


def on_gpus(name: str, figures: Mapping[str, float]) -> str:
    """Return whether a fault's signature is shipped for GPUs, or whether its figures exceed a limit of theirs."""
    if any(fault == name for _, fault in golden.load("flash").signatures):
        return "by its signature"
    limits = compare.limits("gpu")
    over = any(value > limits[figure] for figure, value in figures.items() if figure in limits)
    return "yes" if over else "**no**"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
