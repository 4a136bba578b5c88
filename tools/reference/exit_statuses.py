"""The table of exit-statuses.md."""

from __future__ import annotations

from dsv4_serve.entrypoint.exit_status import ExitStatus
from tools.reference.markdown import code, table


def tables() -> dict[str, str]:
    """Return every status with its name and its meaning."""
    rows = ((str(int(status)), code(status.label), status.meaning) for status in ExitStatus)
    return {"exit statuses": table(("status", "name", "what happened"), rows)}
