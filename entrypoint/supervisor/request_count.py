"""Count the requests that a stop finds running, until each is answered: by vLLM's metrics, and by its log."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from ..client.counters import Counters
from ..vllm_log.parser import LogLine

# v1/engine/core.py of vLLM 0.32.0, logged by each engine once; with a time-out of 0 it aborts what runs.
_BEGUN = re.compile(r"\[shutdown\] EngineCore: start mode=(drain|abort)")
_DONE = "[shutdown] EngineCore: request processing complete"
_STOPPED = "[shutdown] API server: engine client stopped"  # entrypoints/launchers/launcher.py


@dataclass
class ShutdownLog:
    """What vLLM's log shows of its shutdown."""

    begun: int = 0
    done: int = 0
    aborts: bool = False
    stopped: bool = False
    """Whether the API server says that every engine has ended."""

    def feed(self, line: LogLine) -> None:
        """Take one line."""
        if match := _BEGUN.match(line.text):
            self.begun += 1
            self.aborts = self.aborts or match[1] == "abort"
        self.stopped = self.stopped or line.text.startswith(_STOPPED)
        self.done += line.text.startswith(_DONE)

    @property
    def died(self) -> bool:
        """Whether an engine ended before it was done; the API server may wait on, and ends with 0."""
        return self.stopped and not self.complete

    @property
    def complete(self) -> bool:
        """Whether every engine answered what it had."""
        return 0 < self.begun <= self.done and not self.aborts


@dataclass
class RequestCount:
    """The requests that a stop finds running, and those that come before vLLM has its own SIGTERM."""

    before: int
    """Requests that ran at the last reading before the signal."""
    progressed: float
    """When a counter last changed, or nothing ran."""
    read_at: float = -math.inf
    """When the metrics were last read."""
    first: Counters | None = None
    last: Counters | None = None
    log: ShutdownLog = field(default_factory=ShutdownLog)

    def read(self, counters: Counters, now: float) -> None:
        """Take one reading."""
        self.first = self.first or counters
        if counters != self.last or not _unanswered(counters):
            self.progressed = now
        self.last, self.read_at = counters, now

    @property
    def open(self) -> int:
        """Requests without a whole answer at the last reading."""
        return self.before if self.last is None else _unanswered(self.last)

    @property
    def failed(self) -> int:
        """Requests that ended without a whole answer; clients may abort their own, so aborts need the log's word."""
        if self.first is None or self.last is None:
            return 0
        aborted = self.last.aborted - self.first.aborted if self.log.aborts else 0
        return self.last.errors - self.first.errors + aborted

    @property
    def cut(self) -> int:
        """Requests without a whole answer if vLLM ends now."""
        return self.failed + (0 if self.log.complete else self.open)

    @property
    def answered(self) -> bool:
        """Whether every request is known to be answered whole."""
        return not self.cut and (self.last is not None or self.log.complete)

    @property
    def idle(self) -> bool:
        """Whether nothing ran when the signal came, nor since."""
        if self.first is None or self.last is None:
            return False
        return self.answered and self.first.finished == self.last.finished


def _unanswered(counters: Counters) -> int:
    return counters.running + counters.waiting
