"""Write every result of a folder on one self-contained HTML page."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import jinja2

from .. import plain_file, results, templates
from ..bench import plot
from ..errors import ConfigError, HostError
from . import sections

_FOLDER = Path(__file__).resolve().parent
_UNREADABLE = (
    LookupError, TypeError, AttributeError, ValueError, ZeroDivisionError, jinja2.UndefinedError,
)  # fmt: skip


def write(folder: Path, out: Path) -> str:
    """Write the page of the results in `folder` and return a line about it; raise ConfigError, HostError."""
    measured = results.read(folder)
    if not measured:
        raise ConfigError(
            f"{folder} has no results; `dsv4 qualify`, `dsv4 bench`, `dsv4 smoke` and `dsv4 eval` write them there."
        )
    try:
        plain_file.write_text(out, page(measured, folder, datetime.now(UTC)))
    except OSError as error:
        raise HostError(f"cannot write {out} ({error.strerror}); choose another file with --out.") from None
    return f"{out}: {len(measured)} results from {folder}"


def page(measured: list[dict[str, object]], folder: Path, now: datetime) -> str:
    """Return the page as HTML."""
    template = templates.environment(_FOLDER, plot.FOLDER).get_template("page.html")
    about = f"{len(measured)} results from {folder}, {now:%Y-%m-%d %H:%M} UTC"
    try:
        return template.render(about=about, summary=sections.summary(measured), sections=sections.sections(measured))
    except _UNREADABLE as error:
        raise ConfigError(
            f"{folder}: a result is from another version ({error!r}); move it out of the folder."
        ) from None
