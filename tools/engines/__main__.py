"""
Write the tables of docs/results/engines.md from qualification/results/engines.toml and the results that it names.

    python -m tools.engines

Rows that look like a stall and are not marked are printed; nothing is marked by itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.engines import sessions, tables
from tools.engines.stalls import stalls
from tools.tables import renewed

PAGE = Path(__file__).resolve().parents[2] / "docs/results/engines.md"


def main() -> int:
    """Write the page; return the exit status."""
    try:
        found = sessions.read()
        before = PAGE.read_text(encoding="utf-8")
        after = renewed(before, tables.tables(found), PAGE)
        if after != before:
            _write(after)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for line in stalls(found):
        print(f"a stall? {line}", file=sys.stderr)
    if after != before:
        print(PAGE)
    return 0


def _write(text: str) -> None:
    """Write the page beside it first, so that it is never half written."""
    beside = PAGE.with_suffix(".new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(PAGE)
    finally:
        beside.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
