"""
What the run directory remembers of earlier starts, and how long the crash-loop breaker holds the next one back.

One failure may be bad luck: the next start goes on at once. From the second in a row of the same plan on, each waits
twice as long as the one before. A changed plan starts with a clean record, and so does one that was healthy for long.
A start that ended without a word (killed, or the power went) counts as a failure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import HostError

FILE = "starts.json"


@dataclass(frozen=True)
class Record:
    """Starts and failures in a row of one plan; `ended` is seconds since the epoch, 0 while it runs."""

    plan: str = ""
    starts: int = 0
    failures: int = 0
    ended: float = 0.0
    cause: str = ""

    def begin(self, plan: str) -> Record:
        """Return the record of the start that now begins."""
        if plan != self.plan:
            return Record(plan, starts=1)
        unsaid = self.starts > 0 and not self.ended
        return Record(
            plan, self.starts + 1, self.failures + unsaid, 0.0, "ended without a word" if unsaid else self.cause
        )

    def end(self, cause: str, now: float, *, failed: bool) -> Record:
        """Return the record of a start that has ended; a good end closes the row of failures."""
        return dataclasses.replace(self, failures=self.failures + 1 if failed else 0, ended=now, cause=cause)

    def healthy(self) -> Record:
        """Return the record of a start that was ready for so long that earlier failures no longer count."""
        return dataclasses.replace(self, failures=0)


def hold(failures: int, first: float, most: float) -> float:
    """Return the seconds to wait before a start after so many failures in a row."""
    return 0.0 if failures < 2 else min(most, first * 2.0 ** min(failures - 2, 32))


def fingerprint(*parts: Any) -> str:
    """Return what tells one plan from another; no secret can be read from it."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def load(folder: Path) -> Record:
    """Return the record of a run directory; an empty one where there is none that can be read."""
    try:
        return Record(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Record()


def save(folder: Path, record: Record) -> None:
    """Write the record, whole or not at all; a full disk keeps the old one."""
    write(folder / FILE, json.dumps(dataclasses.asdict(record)))


def write(path: Path, text: str) -> bool:
    """Write a file, whole or not at all, and tell whether that worked."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        return False
    return True


def default_folder(port: int) -> Path:
    """Return the run directory where none is named: one a port, as two servers of one host differ in that."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path(os.environ.get("HOME") or "/nonexistent", ".local/state"))
    for folder in (state / "dsv4" / str(port), Path(tempfile.gettempdir(), f"dsv4-{os.getuid()}", str(port))):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise HostError(
        f"No folder for the run directory can be made under {state} or {tempfile.gettempdir()}; set DSV4_RUN_DIR."
    )


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold the run directory; raise HostError when it cannot be written, or another server holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise HostError(f"Run directory {folder}: cannot be written ({error.strerror}); set DSV4_RUN_DIR.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HostError(f"Run directory {folder} is in use by another `dsv4 serve`; set DSV4_RUN_DIR.") from None
        yield
