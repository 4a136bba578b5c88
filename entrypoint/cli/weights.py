"""`dsv4 weights`: fetch weights from the Hub, show what is here, and verify it."""

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
    from ..weights.prefetch import Prefetched
    from .parser import Commands


_SOURCES = {
    "hub": "compared with the Hub",
    "manifest": "compared with dsv4-weights.json",
    "index": "compared with the index",
}
_UNKNOWN = "it may be incomplete, as there is no list of its files to compare with"


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "weights",
        "Fetch a model's weights from the Hub, or check local ones.",
        run,
        details="`fetch` resumes where it stopped, `status` lists what is there, `verify` hashes every file, and"
        " `prefetch` reads the shards into the page cache.",
        epilog="Exit status 1: files are missing, wrong, or do not belong to the model.",
    )
    parser.add_argument(
        "action",
        metavar="status|fetch|verify|prefetch",
        choices=("status", "fetch", "verify", "prefetch"),
        help="what to do",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a model that `dsv4 profiles` lists, or the repository OWNER/NAME"
    )
    parser.add_argument("--to", metavar="FOLDER", help="use this folder (default: the Hub's cache)")
    parser.add_argument("--revision", metavar="R", help="use this branch, tag or commit (default: main)")
    arguments.add_format(parser)


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Fetch, list, verify or prefetch; return 1 where files are missing or wrong."""
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
        place_read = folder or "the Hub's cache"
        raise ConfigError(f"{repository} is not in {place_read}; fetch it, or name its folder with --to.")
    if options.action == "prefetch":
        from ..weights import prefetch

        read = prefetch.prefetch(where, prefetch.available())
        return answer(options, read.to_json, lambda: prefetched_text(read))
    verified = manifest.verify(where, manifest.read(where) or hub.listing(repository, place))
    answer(options, verified.to_json, lambda: verified_text(verified))
    return 0 if verified.whole else 1


def status_text(status: Status) -> str:
    """Return which part of a repository is present."""
    named = f"{status.repository}@{status.revision[:12]}" if status.revision else status.repository
    if status.folder is None:
        remaining = "" if status.missing_size is None else f"; {status.missing_size / 1e9:.2f} GB to fetch"
        return f"{named}: not fetched{remaining}."
    here = f"{named}: {_files(status.files)}, {status.size / 1e9:.2f} GB in {status.folder}"
    if not status.missing:
        return f"{here}; complete, {_SOURCES[status.source]}." if status.complete else f"{here}; {_UNKNOWN}."
    remaining = "" if status.missing_size is None else f", {status.missing_size / 1e9:.2f} GB"
    missing = f"missing {len(status.missing)}{remaining}, {_SOURCES[status.source]}"
    return "\n".join([f"{here}; {missing}:", *(f"  {path}" for path in status.missing)])


def prefetched_text(read: Prefetched) -> str:
    """Return what was read into the page cache, and how fast."""
    rate = f"{read.rate / 1e9:.2f} GB/s"
    return f"{read.folder}: {_files(read.files)}, {read.bytes / 1e9:.2f} GB in {read.seconds:.1f} s, {rate}"


def verified_text(verified: Verified) -> str:
    """Return the result of a verification."""
    amount = f"{_files(verified.checked)}, {verified.size / 1e9:.2f} GB in {verified.folder}"
    head = f"{verified.repository}@{verified.revision[:12]}: {amount}"
    named = {"missing": verified.missing, "wrong": verified.wrong, "not in this revision": verified.foreign}
    lines = [f"  {what}: {path}" for what, paths in named.items() for path in paths]
    return "\n".join([f"{head}: {'all bytes match' if verified.whole else 'does not match'}.", *lines])


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"
