"""`dsv4 weights`: weights from the Hub, what is here of them, and whether every byte is right."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from . import arguments
from .output import answer

if TYPE_CHECKING:
    from ..weights.hub import Status
    from ..weights.manifest import Verified
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "weights",
        "Fetch a model's weights from the Hub, or check those here.",
        run,
        details="`fetch` goes on where it stopped; `status` says what is here; `verify` hashes every file.",
        epilog="Exit status 1: not everything is here, or not as it has to be.",
    )
    parser.add_argument("action", choices=("status", "fetch", "verify"))
    parser.add_argument("model", metavar="MODEL", help="a model of `dsv4 profiles`, or OWNER/NAME")
    parser.add_argument("--to", metavar="FOLDER", help="a folder of its own, in place of the Hub's cache")
    parser.add_argument("--revision", metavar="R", help="a branch, a tag or a commit")
    arguments.add_format(parser)


def run(options: argparse.Namespace, _words: list[str]) -> int:
    """Fetch, look or verify; 1 where not everything is here and right."""
    from ..catalog.catalog import Catalog
    from ..resolve import environment
    from ..weights import hub, manifest
    from . import log

    log.to_stderr()
    repository = hub.repository_of(Catalog(environment.folders()), options.model, "command line")
    place, folder = hub.Place(revision=options.revision), Path(options.to) if options.to else None
    if options.action == "fetch":
        fetched = hub.fetch(repository, place, folder)
        return answer(options, lambda: {"folder": str(fetched)}, lambda: str(fetched))
    if options.action == "status":
        status = hub.status(repository, place, folder)
        answer(options, status.to_json, lambda: status_text(status))
        return 0 if status.complete else 1
    where = folder or hub.cached(repository, place)
    if where is None or not where.is_dir():
        raise ConfigError(f"{repository} is not here; fetch it, or name its folder with --to.")
    verified = manifest.verify(where, manifest.read(where) or hub.listing(repository, place))
    answer(options, verified.to_json, lambda: verified_text(verified))
    return 0 if verified.whole else 1


def status_text(seen: Status) -> str:
    """Return what of a repository is here."""
    named = f"{seen.repository}@{seen.revision[:12]}" if seen.revision else seen.repository
    if seen.folder is None:
        left = "" if seen.missing_size is None else f"; {seen.missing_size / 1e9:.2f} GB to fetch"
        return f"{named}: nothing is here{left}."
    here = f"{named}: {seen.files} files, {seen.size / 1e9:.2f} GB in {seen.folder} (by {seen.source})"
    if not seen.missing:
        return f"{here}; complete." if seen.complete else f"{here}; no list says what belongs to it."
    left = "" if seen.missing_size is None else f", {seen.missing_size / 1e9:.2f} GB"
    return "\n".join([f"{here}; missing {len(seen.missing)}{left}:", *(f"  {path}" for path in seen.missing)])


def verified_text(seen: Verified) -> str:
    """Return what became of a verification."""
    head = f"{seen.repository}@{seen.revision[:12]}: {seen.checked} files, {seen.size / 1e9:.2f} GB in {seen.folder}"
    named = {"missing": seen.missing, "wrong": seen.wrong, "from elsewhere": seen.foreign}
    lines = [f"  {what}: {path}" for what, paths in named.items() for path in paths]
    return "\n".join([f"{head}: {'every byte is right' if seen.whole else 'not right'}.", *lines])
