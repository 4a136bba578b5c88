"""Write every result of a folder on one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from .. import plain_file, results, templates
from ..bench import plot
from ..errors import ConfigError, HostError
from . import sections, summary
from .parts import Collection

_FOLDER = Path(__file__).resolve().parent
_UNREADABLE = (
    LookupError, TypeError, AttributeError, ValueError, ZeroDivisionError, jinja2.UndefinedError,
)  # fmt: skip
_WRITERS = "`dsv4 qualify`, `dsv4 bench`, `dsv4 smoke` and `dsv4 eval` write them there."


def write(folder: Path, out: Path, *, published: bool = False) -> str:
    """
    Write the page of the results in `folder` and return a line about it; raise ConfigError, HostError.

    What the project published is left out, unless it is asked for; then it follows the user's own.
    """
    measured = results.read(folder)
    theirs = [result for result in measured if result["published"]]
    own = [result for result in measured if not result["published"]]
    if not own and not (published and theirs):
        more = f" It has {len(theirs)} that this project published; --published shows them." if theirs else ""
        whose = "no results of yours" if theirs else "no results"
        raise ConfigError(f"{folder} has {whose}; {_WRITERS}{more}")
    shown = [*own, *theirs] if published else own
    try:
        plain_file.write_text(out, page(shown, folder, datetime.now(UTC)))
    except OSError as error:
        raise HostError(f"cannot write {out} ({error.strerror}); choose another file with --out.") from None
    return f"{out}: {_counted(shown)} from {folder}"


def page(measured: Sequence[dict[str, Any]], folder: Path, now: datetime) -> str:
    """Return the page as HTML."""
    template = templates.environment(_FOLDER, plot.FOLDER).get_template("page.html")
    about = f"{_counted(measured)} from {folder}, {now:%Y-%m-%d %H:%M} UTC"
    try:
        return template.render(about=about, collections=list(_collections(measured)))
    except _UNREADABLE as error:
        raise ConfigError(
            f"{folder}: a result is from another version ({error!r}); move it out of the folder."
        ) from None


def _counted(measured: Sequence[dict[str, Any]]) -> str:
    return "1 result" if len(measured) == 1 else f"{len(measured)} results"


def _collections(measured: Sequence[dict[str, Any]]) -> Iterator[Collection]:
    for title, published in ("", False), ("Published by the project", True):
        if own := [result for result in measured if result.get("published", False) == published]:
            yield Collection(title, summary.sentence(own), summary.table(own), sections.sections(own))
