"""
The files of one revision of a repository, with sizes and hashes; and verifying a folder without a network.

`dsv4-weights.json` in the folder of the weights keeps the list: sha256 for large files, git's blob id (sha1) for the
others, as the Hub reports them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from .. import plain_file
from ..errors import ConfigError

log = logging.getLogger(__name__)

NAME = "dsv4-weights.json"
_DIGITS = {"sha256": 64, "git-sha1": 40}
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Entry:
    """One file: path in the repository, size in bytes, hash in hexadecimal digits; ValueError for anything else."""

    path: str
    size: int
    algorithm: Literal["sha256", "git-sha1"]
    digest: str

    def __post_init__(self) -> None:
        parts, digits = PurePosixPath(self.path).parts, _DIGITS.get(self.algorithm)
        if not parts or ".." in parts or parts[0] == "/" or self.size < 0:
            raise ValueError(f"{self.path!r} ({self.size} bytes) is not a valid entry")
        if not re.fullmatch(f"[0-9a-f]{{{digits}}}", self.digest):
            raise ValueError(f"{self.path}: {self.digest!r} is not a {self.algorithm} digest")


@dataclass(frozen=True)
class Manifest:
    """The files of a repository at a revision (a commit id)."""

    repository: str
    revision: str
    files: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """All files together, in bytes."""
        return sum(entry.size for entry in self.files)

    def absent(self, folder: Path) -> tuple[Entry, ...]:
        """Return the files that are not in a folder at their full size."""
        return tuple(entry for entry in self.files if _size(folder / entry.path) != entry.size)


@dataclass(frozen=True)
class Verified:
    """The result of a verification: `checked` files, `size` in bytes, and what is missing, wrong or foreign."""

    folder: Path
    repository: str
    revision: str
    checked: int
    size: int
    missing: tuple[str, ...]
    wrong: tuple[str, ...]
    foreign: tuple[str, ...]
    """safetensors files that the revision does not have."""

    @property
    def whole(self) -> bool:
        """Whether the folder contains exactly this revision, and no other weights."""
        return not (self.missing or self.wrong or self.foreign)

    def to_json(self) -> dict[str, Any]:
        """Return the fields and `whole`, for tools."""
        return {**asdict(self), "folder": str(self.folder), "whole": self.whole}


def write(manifest: Manifest, folder: Path) -> None:
    """Write the list into the folder of the weights."""
    plain_file.write_text(folder / NAME, json.dumps(asdict(manifest), indent=1) + "\n")


def read(folder: Path) -> Manifest | None:
    """Return the list in the folder of the weights, or None; raise ConfigError if it is not valid."""
    path = folder / NAME
    try:
        kept = plain_file.parse_json(plain_file.read(path, 64))
        files = tuple(Entry(**entry) for entry in kept["files"])
        return Manifest(str(kept["repository"]), str(kept["revision"]), files)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror}).") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is not a valid list of files ({error}); fetch the weights again.") from None


def verify(folder: Path, manifest: Manifest, threads: int = 4) -> Verified:
    """Hash every file of the manifest that is in the folder; the progress is logged every five seconds."""
    here = [entry for entry in manifest.files if (folder / entry.path).is_file()]
    progress = TransferProgress("verified", sum(entry.size for entry in here))
    with workers(threads) as (pool, stop):
        digests = pool.map(lambda entry: _digest(folder / entry.path, entry, progress, stop), here)
        wrong = tuple(entry.path for entry, digest in zip(here, digests, strict=True) if digest != entry.digest)
    known = {entry.path for entry in manifest.files}
    return Verified(
        folder,
        manifest.repository,
        manifest.revision,
        len(here),
        progress.total,
        tuple(entry.path for entry in manifest.files if entry not in here),
        wrong,
        tuple(sorted(path.name for path in folder.glob("*.safetensors") if path.name not in known)),
    )


@contextlib.contextmanager
def workers(threads: int) -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
    """Yield threads, and the event that stops them: set at the first exception, Ctrl-C included."""
    stop = threading.Event()
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield pool, stop
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class TransferProgress:
    """Log the bytes done and in total, the rate, and the remaining time; or hand them to `report` instead."""

    def __init__(
        self,
        what: str,
        total: int,
        every: float = 5.0,
        report: Callable[[int, int], None] | None = None,
    ) -> None:
        """`total` in bytes, `every` in seconds; `report` gets the bytes done, and those on disk that were read."""
        self.total, self._what, self._every = total, what, every
        self._report = report or (lambda done, _: log.info(self._sentence(done)))
        self._done, self._read, self._lock = 0, 0, threading.Lock()
        self._begin = self._last = time.monotonic()

    def add(self, count: int) -> None:
        """Count bytes."""
        self._count(count, 0)

    def add_read(self, count: int) -> None:
        """Count bytes of an earlier process that are read again, for their hash; they are not in `total`."""
        self._count(0, count)

    def _count(self, done: int, read: int) -> None:
        with self._lock:
            self._done += done
            self._read += read
            now = time.monotonic()
            if now - self._last >= self._every:
                self._last = now
                self._report(self._done, self._read)

    def _sentence(self, done: int) -> str:
        rate = done / max(time.monotonic() - self._begin, 1e-9)
        rest = f", {max(self.total - done, 0) / rate / 60:.0f} min left" if rate else ""
        return f"{self._what} {done / 1e9:.2f} of {self.total / 1e9:.2f} GB, {rate / 1e6:.0f} MB/s{rest}"


def hasher(entry: Entry) -> Any:
    """Return the hash of an entry's kind, before its first byte; git's blob id begins with the size."""
    if entry.algorithm == "sha256":
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)


def _digest(path: Path, entry: Entry, progress: TransferProgress, stop: threading.Event) -> str:
    size = _size(path)
    if size != entry.size:
        progress.add(entry.size)
        return f"{size} bytes"
    hashed = hasher(entry)
    with plain_file.open_regular(path) as file:
        while not stop.is_set() and (chunk := file.read(CHUNK)):
            hashed.update(chunk)
            progress.add(len(chunk))
    return str(hashed.hexdigest())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
