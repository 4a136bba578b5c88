"""
The pages of docs/reference/, whose tables are made from the code. `python -m tools.reference` writes them.

A page holds prose, and tables between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tools.reference import (
    auto,
    checks,
    commands,
    environment,
    exit_statuses,
    failures,
    k_by_load,
    metrics,
    profile_keys,
    refusals,
)
from tools.tables import renewed

FOLDER = Path(__file__).resolve().parents[2] / "docs/reference"
PAGES: Mapping[str, Callable[[], Mapping[str, str]]] = {
    "auto.md": auto.tables,
    "checks.md": checks.tables,
    "commands.md": commands.tables,
    "environment.md": environment.tables,
    "exit-statuses.md": exit_statuses.tables,
    "failures.md": failures.tables,
    "k-by-load.md": k_by_load.tables,
    "metrics.md": metrics.tables,
    "profile-keys.md": profile_keys.tables,
    "refusals.md": refusals.tables,
}
"""Each page, and what makes its tables by name."""


def page(name: str, text: str) -> str:
    """Return the text of a page with its tables made anew."""
    return renewed(text, PAGES[name](), FOLDER / name)


def write() -> Iterator[Path]:
    """Write every page that is not as the code has it; yield those."""
    for name in PAGES:
        path = FOLDER / name
        before = path.read_text(encoding="utf-8")
        if (after := page(name, before)) != before:
            path.write_text(after, encoding="utf-8")
            yield path
