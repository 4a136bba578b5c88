"""
The crash-loop breaker: it records starts in the run directory, and decides how long the next one waits.

One failure may be bad luck, and the next start does not wait. From the second failure in a row of the same plan, each
wait is twice as long as the one before. A changed plan, or one that was healthy for a long time, starts with a clean
record. A start that left no exit reason (it was killed, or the power failed) counts as a failure.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from . import atomic_file, state_file

FILE = "starts.json"
Count = Annotated[int, Field(ge=0, le=1_000_000)]
UNRECORDED = "no exit reason was recorded"


@dataclass(frozen=True)
class StartRecord:
    """Starts and failures in a row of one plan; `ended` is seconds since the epoch, 0 while it runs."""

    plan: str = ""
    starts: Count = 0
    failures: Count = 0
    ended: float = 0.0
    cause: str = ""

    def begin(self, plan: str) -> StartRecord:
        """Return the record of the next start."""
        if plan != self.plan:
            return StartRecord(plan, starts=1)
        unrecorded = self.starts > 0 and not self.ended
        cause = UNRECORDED if unrecorded else self.cause
        return StartRecord(plan, self.starts + 1, self.failures + unrecorded, 0.0, cause)

    def end(self, cause: str, now: float, *, failed: bool | None) -> StartRecord:
        """Return the record of a start that has ended; None is neither failed nor good, and changes no count."""
        failures = self.failures if failed is None else self.failures + 1 if failed else 0
        return dataclasses.replace(self, failures=failures, ended=now, cause=cause)

    def healthy(self) -> StartRecord:
        """Return the record of a start that was ready long enough to clear earlier failures."""
        return dataclasses.replace(self, failures=0)


def backoff(failures: int, first: float, most: float) -> float:
    """Return the seconds to wait before a start after so many failures in a row."""
    return 0.0 if failures < 2 else min(most, first * 2.0 ** min(failures - 2, 32))


def load(folder: Path) -> StartRecord:
    """Return the record of a run directory; an empty one if none can be read."""
    return state_file.read(folder / FILE, StartRecord) or StartRecord()


def save(folder: Path, record: StartRecord) -> None:
    """Write the record; the old one is kept if the disk is full."""
    atomic_file.write(folder / FILE, json.dumps(dataclasses.asdict(record)))
