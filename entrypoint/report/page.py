"""`dsv4 report`: every receipt of a folder on one HTML page, which loads nothing from anywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from string import Template

from .. import results
from ..errors import ConfigError, HostError
from . import html, sections

_PAGE = Path(__file__).resolve().parent / "page.html"


def write(folder: Path, out: Path) -> str:
    """Write the page of the receipts in `folder` and return a line about it; raise ConfigError, HostError."""
    found = results.read(folder)
    if not found:
        raise ConfigError(f"{folder}: no receipts; `dsv4 bench`, `dsv4 smoke` and `dsv4 eval` leave theirs there.")
    try:
        out.write_text(page(found, folder, datetime.now(UTC)), encoding="utf-8")
    except OSError as error:
        raise HostError(f"{out}: cannot be written ({error.strerror}); name another file with --out.") from None
    return f"{out}: {len(found)} receipts of {folder}"


def page(found: list[dict[str, object]], folder: Path, now: datetime) -> str:
    """Return the page as HTML."""
    try:
        body = "\n".join([sections.summary(found), *sections.all_of(found)])
    except (LookupError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{folder}: a receipt there is not of this version ({error!r}); move it away.") from None
    about = html.text(f"{len(found)} receipts of {folder}, {now:%Y-%m-%d %H:%M} UTC")
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(about=about, body=body)
