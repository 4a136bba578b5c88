"""
Write the table of exit statuses into docs/explanation/health.md.

    python -m tools.exit_statuses
"""

from __future__ import annotations

from pathlib import Path

from dsv4_serve.entrypoint.exit_status import ExitStatus
from tools.tables import renewed

PAGE = Path(__file__).resolve().parent.parent / "docs/explanation/health.md"


def table() -> str:
    """Return every status with its name and its meaning."""
    rows = [f"| {status} | `{status.label}` | {status.meaning} |" for status in ExitStatus]
    return "\n".join(["| status | name | what happened |", "|---|---|---|", *rows]) + "\n"


def page(text: str) -> str:
    """Return the page with its table made anew."""
    return renewed(text, {"exit statuses": table()}, PAGE)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
