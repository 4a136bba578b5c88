"""The progress of a start, from vLLM's log and /proc: its phase, its percentage, and whether it has stalled."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...healthcheck.state import PHASES
from .parser import LogLine
from .startup_patterns import CAPTURED, READY, StartupMark, read

ORDER = PHASES[PHASES.index("starting") : PHASES.index("ready")]
MOVING = 1 << 20  # bytes a second above which processes count as reading
COMPUTING = 0.05  # CPU cores above which they count as computing
_SHOWN = 200  # characters of the last line that are shown


@dataclass
class StartupProgress:
    """
    The progress so far. `now` is `time.monotonic()` throughout.

    Lines of several ranks arrive mixed, so a line moves the start only forward. vLLM really goes back in one case: from
    `profiling` to `compiling kernels`, once the KV cache exists.
    """

    progressed: float
    """When there last was a new phase, a higher percentage, another detail, a compiled kernel, or more bytes."""
    phase: str = "starting"
    percent: float | None = None
    detail: str = ""
    caches: Literal["cold", "warm", "unknown"] = "unknown"
    last_line: str = ""
    heard: bool = False
    """Whether vLLM logs at level INFO: without that, the log does not show the progress of a start."""
    _sized: bool = False  # whether the KV cache exists
    _compiled: bool = False

    def feed(self, line: LogLine, now: float) -> bool:
        """Take one line; tell whether the start made progress."""
        if text := line.text.strip():
            self.last_line = text.partition("\n")[0][:_SHOWN]
        self.heard |= bool(line.source) and line.level in ("INFO", "DEBUG")
        mark = read(line) if self.phase in ORDER else None
        if mark is None or not (phase := self._reached(mark)):
            return False
        if mark.cold is not None and self.caches != "cold":  # one cold cache makes a cold start
            self.caches = "cold" if mark.cold else "warm"
        self._compiled |= phase == "compiling kernels"
        if mark.detail == READY and self._compiled and self.caches == "unknown":
            self.caches = "warm"  # TileLang and FlashInfer log what they build, not what they find
        higher = mark.percent is not None and (self.percent is None or mark.percent > self.percent)
        progressed = phase != self.phase or mark.detail != self.detail or higher or phase == "compiling kernels"
        if phase != self.phase:
            self.phase, self.percent = phase, mark.percent
        elif higher:
            self.percent = mark.percent  # the draft head's shards are counted from 0 again
        self.detail = mark.detail
        if progressed:
            self.progressed = now
        return progressed

    def enter(self, phase: str, now: float) -> None:
        """Go to a phase that the log does not show, such as `proving`."""
        self.phase, self.percent, self.detail, self.progressed = phase, None, "", now

    def moved(self, now: float) -> None:
        """Record progress that the log does not show, such as bytes of weights."""
        self.progressed = now

    def stalled(self, now: float, limits: Mapping[str, float]) -> str:
        """Return why the start counts as stalled, or an empty string; a phase without a limit never does."""
        limit, quiet = limits.get(self.phase), now - self.progressed
        if limit is None or quiet < limit:
            return ""
        setting = f"supervise.stall.{self.phase.replace(' ', '-')}"
        seen = f"last line: {self.last_line or 'none'}"
        if not self.heard:
            seen += "; vLLM logs nothing at level INFO, and its processes neither read, received nor computed"
        return f"{self.phase}: no progress for {quiet:.0f} s (limit {limit:.0f} s, {setting}); {seen}"

    def _reached(self, mark: StartupMark) -> str:
        """Return the phase that a mark stands for, or an empty string for a late line of an earlier phase."""
        if mark.phase == "profiling" and "tokens" in mark.detail:
            self._sized = True
        phase = mark.phase
        if not self._sized and (phase == "capturing graphs" or mark.detail == CAPTURED):
            phase = "profiling"  # trial captures, v1/worker/gpu/cudagraph_utils.py profile_cudagraph_memory
        if self._sized and self.phase == "profiling" and phase == "compiling kernels":
            return phase
        return phase if ORDER.index(phase) >= ORDER.index(self.phase) else ""


def loaded_bytes(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """
    Return the bytes that these processes have read (`rchar`) and have mapped from files now (`RssFile`), together.

    A process that has ended or is unreadable counts as 0. Python's own files are included: only differences matter.
    """
    return sum(
        _value(proc / str(pid) / "io", "rchar:") + _value(proc / str(pid) / "status", "RssFile:") for pid in pids
    )


def cpu_seconds(pids: Iterable[int], proc: Path = Path("/proc")) -> float:
    """Return the CPU time that these processes have used, in seconds; one that has ended counts as 0."""
    ticks = 0
    for pid in pids:
        try:
            fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return ticks / os.sysconf("SC_CLK_TCK")


def received_bytes(pid: int, proc: Path = Path("/proc")) -> int:
    """Return the bytes that the network interfaces of a process have received, without loopback."""
    try:
        lines = (proc / str(pid) / "net/dev").read_text().splitlines()[2:]
    except OSError:
        return 0
    rows = (line.partition(":") for line in lines)
    return sum(int(rest.split()[0]) for name, _, rest in rows if name.strip() != "lo")


@dataclass
class SignsOfLife:
    """
    Whether processes work, for a log that does not show it: they read, receive, compute, or start others.

    A rank that waits for another computes too: so work alone keeps a start going for `patience` seconds in all.
    """

    patience: float
    _last: tuple[float, int, float, frozenset[int]] | None = None
    _began: float | None = None

    def seen(self, now: float, pids: Iterable[int], proc: Path = Path("/proc")) -> bool:
        """Take a sample; tell whether there was work since the last one."""
        pids = frozenset(pids)
        moved = loaded_bytes(pids, proc) + received_bytes(min(pids, default=0), proc)
        last, self._last = self._last, (now, moved, cpu_seconds(pids, proc), pids)
        self._began = now if self._began is None else self._began
        if last is None or now <= last[0] or now - self._began > self.patience:
            return False
        seconds = now - last[0]
        reads = moved - last[1] > MOVING * seconds
        computes = self._last[2] - last[2] > COMPUTING * seconds
        return reads or computes or bool(pids - last[3])


def _value(file: Path, name: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    value, *unit = next((line[len(name) :].split() for line in lines if line.startswith(name)), ["0"])
    return int(value) * (1024 if unit == ["kB"] else 1)


@dataclass
class LoadRate:
    """Bytes a second over the last `window` seconds; a sample below the one before (unmapped shards) counts as 0."""

    window: float = 10.0
    loaded: int = 0
    """Bytes since the first sample."""
    _last: int | None = None
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, now: float, count: int) -> None:
        """Take a sample of `loaded_bytes`."""
        if self._last is not None:
            self.loaded += max(0, count - self._last)
        self._last = count
        self._samples.append((now, self.loaded))
        while len(self._samples) > 2 and self._samples[1][0] <= now - self.window:
            self._samples.popleft()

    @property
    def per_second(self) -> float | None:
        """Bytes a second; None before the second sample."""
        if len(self._samples) < 2:
            return None
        (began, least), (ended, most) = self._samples[0], self._samples[-1]
        return (most - least) / (ended - began) if ended > began else None

    def percent(self, total: int) -> float | None:
        """
        Return how much of `total` bytes is loaded, at most 99: only vLLM knows when it is done.

        With several ranks it is an upper bound: each rank also reads the columns that other ranks keep.
        """
        return min(99.0, 100.0 * self.loaded / total) if total > 0 else None
