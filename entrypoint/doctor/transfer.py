"""
Large files over HTTP, gone on from where an earlier process stopped, and hashed on the way.

huggingface_hub 2.4 starts a file anew after a process ended (its temporary names are unique to a process): with shards
of 40 GB that is an hour lost, so the large files are brought here and the rest is left to it.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dsv4_serve.entrypoint.doctor.manifest import CHUNK, Entry, Progress, hasher
from dsv4_serve.entrypoint.errors import UserError

PART = ".part"
_TRIES = 5  # without a new byte
_TIMEOUT = 30.0  # seconds without a byte


class Unreachable(UserError):
    """The Hub cannot be reached, or may not be asked."""


@dataclass(frozen=True)
class Wanted:
    """One file: where from, where to, and what it has to be."""

    url: str
    target: Path
    entry: Entry


def begun(target: Path) -> int:
    """Return how many bytes of a file an earlier process left."""
    part = _part(target)
    return part.stat().st_size if part.exists() else 0


def fetch(files: Iterable[Wanted], headers: Mapping[str, str], progress: Progress, threads: int = 4) -> None:
    """Bring files, several at a time; raise UserError for the first that cannot be had. What has come stays."""
    stop = threading.Event()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for done in as_completed([pool.submit(_one, file, headers, progress, stop) for file in files]):
                done.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one(file: Wanted, headers: Mapping[str, str], progress: Progress, stop: threading.Event) -> None:
    file.target.parent.mkdir(parents=True, exist_ok=True)
    with _part(file.target).open("a+b") as part:
        _lock(part, file)
        hashed = _hash_of_begun(part, file.entry)
        _bring(file, part, hashed, headers, progress, stop)
        part.flush()
        os.fsync(part.fileno())
        if hashed.hexdigest() != file.entry.digest:
            part.truncate(0)
            raise UserError(
                f"{file.entry.path} came with {file.entry.algorithm} {hashed.hexdigest()[:12]}… and {file.entry.digest[:12]}…"
                " is expected; fetch it again, and look for a proxy that changes it when it comes so again."
            )
        _part(file.target).replace(file.target)


def _bring(
    file: Wanted, part: IO[bytes], hashed: Any, headers: Mapping[str, str], progress: Progress, stop: threading.Event
) -> None:
    """Append what is missing; a connection that breaks is opened again, a few times without a new byte at most."""
    import httpx

    tries = 0
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT, headers=dict(headers)) as client:
        while (have := part.tell()) < file.entry.size and not stop.is_set():
            try:
                with client.stream("GET", file.url, headers={"Range": f"bytes={have}-"} if have else {}) as answer:
                    _require_part(answer.status_code, have, file)
                    for chunk in answer.iter_raw(CHUNK):
                        part.write(chunk)
                        hashed.update(chunk)
                        progress.add(len(chunk))
                        if stop.is_set():
                            return
            except httpx.TransportError as error:
                tries = tries + 1 if part.tell() == have else 1
                if tries > _TRIES:
                    raise Unreachable(
                        f"{file.entry.path} stopped coming after {part.tell():,} of {file.entry.size:,} bytes"
                        f" ({error or type(error).__name__}); fetch again, it goes on there."
                    ) from None
                time.sleep(1)


def _require_part(status: int, have: int, file: Wanted) -> None:
    if status == (206 if have else 200):
        return
    if status in (401, 403):
        raise UserError(f"{file.url} refuses (HTTP {status}); set HF_TOKEN to a token that may read it.")
    raise Unreachable(f"{file.url} answers HTTP {status}; try again later.")


def _hash_of_begun(part: IO[bytes], entry: Entry) -> Any:
    if part.seek(0, os.SEEK_END) > entry.size:
        part.truncate(0)
    part.seek(0)
    hashed = hasher(entry)
    while chunk := part.read(CHUNK):
        hashed.update(chunk)
    return hashed


def _lock(part: IO[bytes], file: Wanted) -> None:
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"Another process is fetching {file.target}; wait for it, or stop it.") from None


def _part(target: Path) -> Path:
    return target.with_name(target.name + PART)
