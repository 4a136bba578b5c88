"""
Download large files over HTTP, resuming where an earlier process stopped, and hash them at the same time.

huggingface_hub 2.4 restarts a file from the beginning in a new process (its temporary names are unique to a process).
With shards of 40 GB that loses an hour, so large files are downloaded here, and huggingface_hub does the rest.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..errors import ConfigError, HostError, UserError
from ..secret import without_password
from .manifest import CHUNK, Entry, TransferProgress, hasher, workers

if TYPE_CHECKING:
    import httpx

PART = ".part"
BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that may pass."""
_TRIES = 5  # in a row that get less than _PROGRESS
_PROGRESS = 1 << 20  # bytes
_WAIT = 0.5  # seconds before the second attempt; doubled before each further one
_TIMEOUT = 30.0  # seconds without a byte
_SLOW = 60.0  # seconds in which a connection has to bring _PROGRESS


class HubUnreachable(HostError):
    """The Hub is unreachable, or may not be contacted (HF_HUB_OFFLINE)."""


class FetchedElsewhere(UserError):
    """Another process is fetching into the same place."""


@dataclass(frozen=True)
class File:
    """One file: its URL, its target, and its expected size and hash."""

    url: str
    target: Path
    entry: Entry


def begun(target: Path) -> int:
    """Return how many bytes of a file an earlier process downloaded."""
    part = _part(target)
    return part.stat().st_size if part.exists() else 0


def fetch(files: Iterable[File], headers: Mapping[str, str], progress: TransferProgress, threads: int = 4) -> None:
    """Download files, several at a time; raise UserError for the first that fails. Partial files are kept."""
    with workers(threads) as (pool, stop):
        for done in as_completed([pool.submit(_download_one, file, headers, progress, stop) for file in files]):
            done.result()


def _download_one(file: File, headers: Mapping[str, str], progress: TransferProgress, stop: threading.Event) -> None:
    try:
        _download(file, headers, progress, stop)
    except OSError as error:
        raise HostError(
            f"cannot write {file.target} ({error.strerror}); fetch again to resume, the bytes so far are kept."
        ) from None


def _download(file: File, headers: Mapping[str, str], progress: TransferProgress, stop: threading.Event) -> None:
    file.target.parent.mkdir(parents=True, exist_ok=True)
    if _part(file.target).exists() and not _part(file.target).is_file():
        raise UserError(f"{_part(file.target)} is not a regular file; remove it, and fetch again.")
    with _part(file.target).open("a+b") as opened:
        _lock(opened, file)
        part = _Part(opened, file.entry, progress)
        for chunk in _chunks(file, part, headers, stop):
            part.add(chunk)
            progress.add(len(chunk))
            if stop.is_set():
                return
        if stop.is_set():
            return
        part.finish()
        _part(file.target).replace(file.target)


def _chunks(file: File, part: _Part, headers: Mapping[str, str], stop: threading.Event) -> Iterator[bytes]:
    """
    Yield the missing bytes; reconnect after an error or an answer that ends short.

    Give up after a few attempts in a row that do not get far, however they end: in an error, short, too slow, or from
    the start.
    """
    import httpx

    tries, furthest, common = 0, part.size, {"Accept-Encoding": "identity", **headers}
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT, headers=common) as client:
        while (have := part.size) < file.entry.size:
            try:
                with client.stream("GET", file.url, headers={"Range": f"bytes={have}-"} if have else {}) as answer:
                    why = yield from _content(answer, file, part)
            except (httpx.TransportError, httpx.TooManyRedirects) as error:
                why = str(error) or type(error).__name__
            if part.size >= file.entry.size:
                return  # of a larger one, the hash is wrong
            tries = 1 if part.size >= furthest + _PROGRESS else tries + 1
            furthest = max(furthest, part.size)
            if tries > _TRIES:
                raise HubUnreachable(
                    f"the download of {file.entry.path} stopped after {part.size:,} of {file.entry.size:,} bytes"
                    f" ({why}); fetch again to resume."
                )
            if stop.wait(_WAIT * 2 ** (tries - 1)):
                return


def _content(answer: httpx.Response, file: File, part: _Part) -> Generator[bytes, None, str]:
    """Yield the bytes of one answer; return why there are not more."""
    if answer.status_code in BUSY:
        return f"HTTP {answer.status_code}"
    _require_success(answer.status_code, file)
    if answer.status_code != 206:
        part.restart()
    pace = _Pace(part.size)
    for chunk in answer.iter_raw():
        yield chunk
        if part.size > file.entry.size:
            break
        if pace.too_slow(part.size):
            return f"less than 1 MiB in {_SLOW:.0f} s"
    return "the answer ended short"


def _require_success(status: int, file: File) -> None:
    url = without_password(file.url)
    if status in (401, 403):
        raise ConfigError(f"access to {url} was denied (HTTP {status}); set HF_TOKEN to a token that can read it.")
    if status not in (200, 206):
        raise HubUnreachable(f"{url} returned HTTP {status}; try again later.")


class _Pace:
    """Whether a connection is still worth keeping."""

    def __init__(self, size: int) -> None:
        self._size, self._since = size, time.monotonic()

    def too_slow(self, size: int) -> bool:
        """Tell whether the last `_SLOW` seconds brought less than `_PROGRESS`."""
        if size >= self._size + _PROGRESS:
            self._size, self._since = size, time.monotonic()
        return time.monotonic() - self._since > _SLOW


class _Part:
    """A partial file: its bytes so far, and their hash."""

    def __init__(self, opened: IO[bytes], entry: Entry, progress: TransferProgress) -> None:
        self._file, self._entry, self._hash, self.size = opened, entry, hasher(entry), 0
        if opened.seek(0, os.SEEK_END) > entry.size:
            opened.truncate(0)
        opened.seek(0)
        while chunk := opened.read(CHUNK):
            self._hash.update(chunk)
            self.size += len(chunk)
            progress.add_read(len(chunk))

    def add(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def restart(self) -> None:
        self._file.truncate(0)
        self._hash, self.size = hasher(self._entry), 0

    def finish(self) -> None:
        """Flush it to the disk; if its hash is wrong, discard it and raise HostError."""
        self._file.flush()
        os.fsync(self._file.fileno())
        digest, expected = self._hash.hexdigest(), self._entry.digest
        if digest != expected:
            self._file.truncate(0)
            raise HostError(
                f"{self._entry.path} has {self._entry.algorithm} {digest[:12]}…, expected {expected[:12]}…;"
                " fetch it again. If this repeats, check for a proxy that alters the download."
            )


def _lock(opened: IO[bytes], file: File) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FetchedElsewhere(
            f"another process is fetching {file.target}; wait for it to finish, or stop it."
        ) from None


def _part(target: Path) -> Path:
    return target.with_name(target.name + PART)
