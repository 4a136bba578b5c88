"""Keep the scores, and make the table of docs/results/mutants.md from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from tools.mutants import PAGE, RESULTS, Score
from tools.tables import renewed


def keep(scores: Iterable[Score], hardware: str, date: str) -> None:
    """Write the scores in place of older ones of the same modules."""
    old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    new = {score.file: {**asdict(score), "hardware": hardware, "date": date} for score in scores}
    for entry in new.values():
        del entry["file"]
    RESULTS.write_text(json.dumps(dict(sorted({**old, **new}.items())), indent=2) + "\n", encoding="utf-8")


def write_page() -> None:
    """Make the page's table anew."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def page(text: str) -> str:
    """Return the text of the page with its table made from the results."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    return renewed(text, {"mutants": rows(found)}, PAGE)


def rows(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one row for each module."""
    lines = [
        "| module | mutants | noticed | score | not counted | seconds | date, hardware |",
        "|---|---|---|---|---|---|---|",
    ]
    for file, entry in found.items():
        share = entry["killed"] / entry["mutants"]
        cells = (entry["mutants"], entry["killed"], f"{share:.1%}", entry["equivalent"], entry["seconds"])
        lines.append(f"| `{file}` | {' | '.join(map(str, cells))} | {entry['date']}, {entry['hardware']} |")
    return "\n".join(lines) + "\n"
