"""
The crash-loop breaker: which starts the run directory remembers, and how long the next one has to wait.

One failure may be bad luck: the next start goes on at once. From the second in a row of the same plan on, each waits
twice as long as the one before. A changed plan starts with a clean record, and so does one that was healthy for long.
A start that left no exit reason (it was killed, or the power failed) counts as a failure.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from . import atomic_file

FILE = "starts.json"
UNRECORDED = "no exit reason was recorded"


@dataclass(frozen=True)
class StartRecord:
    """Starts and failures in a row of one plan; `ended` is seconds since the epoch, 0 while it runs."""

    plan: str = ""
    starts: int = 0
    failures: int = 0
    ended: float = 0.0
    cause: str = ""

    def begin(self, plan: str) -> StartRecord:
        """Return the record of the start that now begins."""
        if plan != self.plan:
            return StartRecord(plan, starts=1)
        unrecorded = self.starts > 0 and not self.ended
        cause = UNRECORDED if unrecorded else self.cause
        return StartRecord(plan, self.starts + 1, self.failures + unrecorded, 0.0, cause)

    def end(self, cause: str, now: float, *, failed: bool) -> StartRecord:
        """Return the record of a start that has ended; a good end closes the row of failures."""
        return dataclasses.replace(self, failures=self.failures + 1 if failed else 0, ended=now, cause=cause)

    def healthy(self) -> StartRecord:
        """Return the record of a start that was ready for so long that earlier failures no longer count."""
        return dataclasses.replace(self, failures=0)


def backoff(failures: int, first: float, most: float) -> float:
    """Return the seconds to wait before a start after so many failures in a row."""
    return 0.0 if failures < 2 else min(most, first * 2.0 ** min(failures - 2, 32))


def load(folder: Path) -> StartRecord:
    """Return the record of a run directory; an empty one where there is none that can be read."""
    try:
        return StartRecord(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return StartRecord()


def save(folder: Path, record: StartRecord) -> None:
    """Write the record; a full disk keeps the old one."""
    atomic_file.write(folder / FILE, json.dumps(dataclasses.asdict(record)))
