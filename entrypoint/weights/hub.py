"""Weights on the Hub: check which are present locally, fetch the rest, and list the files to verify."""

from __future__ import annotations

import fnmatch
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..catalog.catalog import Catalog
from ..checkpoint import read
from ..errors import ConfigError, HostError, UserError, closest_release, listed
from . import download, hub_cache, manifest
from .download import HubUnreachable
from .hub_errors import one_sentence
from .manifest import Entry, Manifest, TransferProgress

log = logging.getLogger(__name__)

NOT_SERVED = ("*.bin", "*.pt", "*.pth", "*.gguf", "original/*")
"""Weights in formats that are not served: neither fetched nor counted as missing."""


@dataclass(frozen=True)
class Place:
    """The Hub's address and the cache's folder (None: HF_ENDPOINT, HF_HUB_CACHE), a branch or commit."""

    endpoint: str | None = None
    cache: Path | None = None
    revision: str | None = None

    @property
    def cache_folder(self) -> Path:
        """The cache's folder; that of this process's environment where none is named."""
        return self.cache or hub_cache.folder(os.environ)


@dataclass(frozen=True)
class Status:
    """
    Which part of a repository is present: the number and `size` in bytes of its `files`, and the `missing` paths.

    `source` is the list it was compared with: `hub`, `manifest` (dsv4-weights.json), `index`, or `nothing`.
    """

    repository: str
    revision: str
    folder: Path | None
    source: str
    files: int = 0
    size: int = 0
    missing: tuple[str, ...] = ()
    missing_size: int | None = None
    """None if the sizes are unknown without the Hub."""

    @property
    def complete(self) -> bool:
        """Whether every served file is present at its full size."""
        return self.folder is not None and self.source != "nothing" and not self.missing

    def to_json(self) -> dict[str, Any]:
        """Return the fields and `complete`, for tools."""
        folder = str(self.folder) if self.folder else None
        return {**asdict(self), "folder": folder, "complete": self.complete}


def repository_of(catalog: Catalog, text: str, origin: str) -> str:
    """Return the repository of a model name, or the given OWNER/NAME."""
    names = catalog.names("model")
    if text in names:
        if repository := catalog.model(text, origin).flags().get("model"):
            return str(repository)
    elif "/" in text:
        return text
    named = [model.name for model in catalog.every_model() if model.flags().get("model")]
    near = closest_release(text, named, 0.7)
    hint = f" (did you mean {near}?)" if near else ""
    raise ConfigError(
        f"{origin}: no repository is known for {text!r}{hint}; use OWNER/NAME, or one of {listed(named)}."
    )


def cached(repository: str, place: Place = Place()) -> Path | None:
    """Return the snapshot of a repository in the Hub's cache, complete or not, or None."""
    with one_sentence(repository, place):
        from huggingface_hub import try_to_load_from_cache

        config = try_to_load_from_cache(
            repository, "config.json", cache_dir=place.cache_folder, revision=place.revision
        )
    return Path(config).parent if isinstance(config, str) else None


def listing(repository: str, place: Place = Place()) -> Manifest:
    """Request the files of a revision from the Hub; raise UserError if that fails."""
    with one_sentence(repository, place):
        from huggingface_hub import HfApi

        info = HfApi(endpoint=place.endpoint).model_info(repository, revision=place.revision, files_metadata=True)
    served = [
        file
        for file in sorted(info.siblings or (), key=lambda file: file.rfilename)
        if not any(fnmatch.fnmatch(file.rfilename, glob) for glob in NOT_SERVED)
    ]
    try:
        return Manifest(repository, info.sha or "", tuple(map(_entry, served)))
    except ValueError as error:
        raise ConfigError(f"{repository}: the Hub's list of files is not valid ({error}); check HF_ENDPOINT.") from None


def _entry(file: Any) -> Entry:
    size = file.size or 0
    if file.lfs:
        return Entry(file.rfilename, size, "sha256", file.lfs.sha256)
    return Entry(file.rfilename, size, "git-sha1", file.blob_id or "")


def status(repository: str, place: Place = Place(), folder: Path | None = None) -> Status:
    """Return what a folder or the cache contains; without a network, compared with its manifest or its index."""
    where = folder or cached(repository, place)
    try:
        return _compared(repository, where, listing(repository, place), "hub")
    except HubUnreachable:
        return local_status(repository, place, folder)


def local_status(repository: str, place: Place = Place(), folder: Path | None = None) -> Status:
    """Return the same without asking the Hub."""
    where = folder or cached(repository, place)
    known = manifest.read(where) if where else None
    return _by_index(repository, where) if known is None else _compared(repository, where, known, "manifest")


def _compared(repository: str, where: Path | None, known: Manifest, source: str) -> Status:
    absent = known.absent(where) if where else known.files
    size = sum(entry.size for entry in absent)
    return Status(
        repository,
        known.revision,
        where if where and where.is_dir() else None,
        source,
        len(known.files) - len(absent),
        known.size - size,
        tuple(entry.path for entry in absent),
        size,
    )


Report = Callable[[int, int, int], None]
"""Takes the bytes of a repository that are present, its size, and the bytes of partial files that were read again."""


def fetch(repository: str, place: Place = Place(), folder: Path | None = None, report: Report | None = None) -> Path:
    """
    Fetch what is missing into a folder, or into the Hub's cache, and return the folder.

    Partial files are resumed, and the manifest for `verify` is written into the folder. Raise UserError if the Hub does
    not answer or the disk is too small. Progress is logged; or `report` gets it, first when anything is missing.
    """
    known = listing(repository, place)
    where = folder or cached(repository, place)
    absent = known.absent(where) if where else known.files
    files = [
        download.File(_url(known, entry, place), _target(known, entry, place, folder), entry)
        for entry in absent
        if folder or entry.algorithm == "sha256"  # a cache names large files by their sha256
    ]
    files = [file for file in files if folder or not file.target.exists()]
    remaining = sum(file.entry.size - download.begun(file.target) for file in files)
    _require_room(repository, remaining, folder or place.cache_folder)
    log.info(
        f"fetching {repository}@{known.revision[:12]}: {remaining / 1e9:.2f} of {known.size / 1e9:.2f} GB to download"
    )
    if absent and report:
        report(known.size - remaining, known.size, 0)
    download.fetch(files, _headers(), _progress(remaining, known.size, report))
    path = folder or _complete_cache(known, place)
    try:
        manifest.write(known, path)
    except OSError as error:
        raise HostError(f"cannot write {path / manifest.NAME} ({error.strerror}).") from None
    return path


def _progress(remaining: int, size: int, report: Report | None) -> TransferProgress:
    if report is None:
        return TransferProgress("fetched", remaining)
    return TransferProgress("fetched", remaining, 1.0, lambda done, read: report(size - remaining + done, size, read))


def _complete_cache(known: Manifest, place: Place) -> Path:
    """Leave the small files, the links and the branch's name to huggingface_hub, and return the snapshot."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    with one_sentence(known.repository, place):
        path = snapshot_download(
            known.repository,
            revision=place.revision,
            cache_dir=place.cache_folder,
            endpoint=place.endpoint,
            ignore_patterns=list(NOT_SERVED),
        )
    if Path(path).name != known.revision:
        raise UserError(f"{known.repository} changed during the download; fetch it again.")
    return Path(path)


def _url(known: Manifest, entry: Entry, place: Place) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(known.repository, entry.path, revision=known.revision, endpoint=place.endpoint)


def _target(known: Manifest, entry: Entry, place: Place, folder: Path | None) -> Path:
    if folder:
        return folder / entry.path
    return hub_cache.repository_folder(place.cache_folder, known.repository) / "blobs" / entry.digest


def _headers() -> dict[str, str]:
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _by_index(repository: str, where: Path | None) -> Status:
    if where is None or not where.is_dir():
        return Status(repository, "", None, "nothing")
    checkpoint = read.read(where)
    missing = tuple(sorted(checkpoint.listed - checkpoint.shards.keys()))
    source = "index" if checkpoint.weight_map else "nothing"
    size = sum(shard.size for shard in checkpoint.shards.values())
    return Status(repository, "", where, source, len(checkpoint.shards), size, missing)


def _require_room(repository: str, remaining: int, into: Path) -> None:
    """Raise HostError if the disk has no space for the remaining bytes."""
    existing = next(path for path in (into.absolute(), *into.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if remaining > free:
        raise HostError(
            f"{into} has {free / 1e9:.1f} GB free, but {repository} needs {remaining / 1e9:.1f} GB more;"
            " free some space, or choose a folder on another disk."
        )
