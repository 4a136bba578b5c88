"""
Find the root cause in a log, as the lines pass by: a bounded record of failures.

vLLM reports one failure many times: the worker logs the exception, the engine core logs that the worker failed, the
API server logs a third one, and every stream that runs logs two more. Each standing has room of its own, and keeps what
came first: no number of echoes pushes a cause out.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from ..listen import API_PORT
from . import reasons
from .parser import LogLine
from .reasons import LENGTH, Message
from .standing import Standing
from .traceback_reader import FATAL, SURVIVED, Failure, Link, TracebackReader

KEPT = 32  # failures of each standing
BURST = 1000  # lines of ordinary work that separate two failures
READERS = 256
NEAR = 400  # lines between what a compiler or a kernel printed by itself, and the exception that follows

# Lines that no logger wrote and that are no traceback: argparse, PyTorch's C++ and crash handlers, faulthandler.
_ALONE = re.compile(
    r"(vllm( \w+)?|\S+\.py): error: |\[\w+\]:\[E\d{3,4} |\[E\d{3,4} "
    r"|terminate called| *what\(\):|!!!!!!! Segfault|Fatal Python error|Segmentation fault|Bus error|Killed$"
    r"|libgomp: Thread creation failed|OMP: Error #\d"  # OpenMP of GNU and of LLVM
    r"|Failed: Cuda error|Illegal instruction|double free or corruption|corrupted (size vs|double-linked)"
    r"|(malloc|free|realloc|munmap_chunk)\(\): |\*\*\* stack smashing detected"  # glibc
)
_NOISE = re.compile(r"Dumping (input data|scheduler)")  # logging_utils/dump_input.py, between cause and echo
_FROM_COMPILER = re.compile(
    r"[Cc]ompil|nvcc|NVCC|ninja|Ninja|[Bb]uild|\bjit\b|ptxas|CalledProcessError|PassManager|MLIR|LLVM"
)
_FROM_NCCL = re.compile(r"NCCL WARN (.+)")  # with NCCL_DEBUG=WARN or more
_PORT = re.compile(r"non-default args: .*?'port': (\d+)")
_STOPPED = "[shutdown] API server: shutdown triggered"  # launcher.py, by SIGTERM or SIGINT; not when the engine died
_WAITING = re.compile(r"No available shared memory broadcast block found")  # shm_broadcast.py, at level INFO


@dataclass(frozen=True)
class RootCause:
    """What ended vLLM: its line, what else its chain says, and what it stands for."""

    text: str
    others: tuple[str, ...]
    standing: Standing
    fatal: bool


@dataclass
class LogNotes:
    """Notes on one log, taken line by line."""

    port: int = API_PORT
    """vLLM's port, from the arguments that it logs, or else its default."""
    waiting: str = ""
    """The last line that reports one process waiting for another."""
    stopped: bool = False
    """Whether vLLM was asked to stop; later lines are noise of the shutdown."""
    _fatal: list[Failure] = field(default_factory=list)
    _survived: deque[Failure] = field(default_factory=lambda: deque(maxlen=KEPT))
    _readers: dict[tuple[str, str], TracebackReader] = field(default_factory=dict)
    _printed: dict[str, int] = field(default_factory=dict)  # what compilers and kernels print by themselves, and where
    _number: int = 0
    _ordinary: int = 0  # lines of ordinary work since the last one of a failure
    _time: str = ""

    def feed(self, line: LogLine) -> None:
        """Take one line of the log."""
        first, *rest = line.split() or [line]
        self._feed(first, begins=bool(rest))
        for part in rest:
            self._feed(part)

    def roots(self) -> list[RootCause]:
        """Return the possible causes, the likeliest first."""
        recent = [failure for failure in self._survived if failure.number > self._number - BURST]
        failures = self._fatal or recent
        if all(failure.standing is Standing.ECHO for failure in self._fatal):
            failures = failures + [one for one in recent if one.in_thread and one not in failures]
        ordered = sorted(failures, key=lambda failure: (failure.standing, self._when(failure), failure.number))
        return [self._root(failure) for failure in ordered]

    def _feed(self, line: LogLine, *, begins: bool = False) -> None:
        self._number += 1
        self._time = line.time or self._time
        if self.stopped:
            return
        if line.level in ("INFO", "DEBUG"):  # these may contain a user's prompt
            self._ordinary += 1
            self._read_info(line)
            return
        if _NOISE.match(line.text):
            return
        reader = self._reader(line)
        if begins or FATAL.match(line.text):
            reader.head(line.text, self._number)
        was_reading = reader.reading
        if failure := reader.feed(line.text, self._number, line.level, line.time or self._time):
            failure.printed = [text for text, number in self._printed.items() if self._number - number < NEAR]
            announced = self._survived and self._survived[-1].number == reader.headed
            if announced and failure.standing is not Standing.ECHO:
                self._survived.pop()  # the headline of this traceback, which says less
            self._add(failure)
        elif not (was_reading or reader.reading) or (not line.level and _ALONE.match(line.text)):
            self._note(reader, line)

    def _reader(self, line: LogLine) -> TracebackReader:
        key = (line.process, line.source)
        if key not in self._readers and len(self._readers) >= READERS:
            self._readers.pop(next(iter(self._readers)))
        return self._readers.setdefault(key, TracebackReader())

    def _read_info(self, line: LogLine) -> None:
        if _WAITING.match(line.text):
            self.waiting = line.text[:LENGTH]
        elif match := _PORT.match(line.text):
            self.port = int(match[1])
        elif line.source and line.text.startswith(_STOPPED):
            self.stopped = True

    def _note(self, reader: TracebackReader, line: LogLine) -> None:
        """Take a line that is no part of a traceback; it may go on with a message."""
        text, logged = line.text, line.level in ("ERROR", "CRITICAL")
        goes_on = reader.failure is not None and line.source and not SURVIVED.match(text)
        if FATAL.match(text) and "died unexpectedly" not in text:
            return
        if (logged and not goes_on) or (not line.level and SURVIVED.match(text)):
            reader.head(text, self._number)
        if logged and not goes_on:
            self._add(self._alone(line, fatal="died unexpectedly" in text))
        elif "engine core exited unexpectedly" in text or (not line.level and _ALONE.match(text)):
            self._add(self._alone(line, fatal=True))
        elif not line.level and (warning := _FROM_NCCL.search(text)):
            self._print(f"NCCL: {warning[1].strip()[:LENGTH]}")
        elif not line.level and reasons.grade(text) > 1:
            self._print(reasons.asserted(text) or text.strip()[:LENGTH])

    def _print(self, text: str) -> None:
        self._printed.setdefault(text, self._number)
        if len(self._printed) > KEPT:
            self._printed.pop(next(iter(self._printed)))

    def _alone(self, line: LogLine, *, fatal: bool) -> Failure:
        return Failure([Link(Message(line.text.strip()[: 4 * LENGTH]))], self._number, fatal, line.time or self._time)

    def _add(self, failure: Failure) -> None:
        if not failure.fatal:
            if failure.standing is not Standing.ECHO:
                self._survived.append(failure)
            return
        if failure.standing is not Standing.ECHO and self._ordinary > BURST:
            self._fatal.clear()
        self._ordinary = 0
        alike = [known for known in self._fatal if known.standing == failure.standing]
        repeated = any(known.links[-1].message.headline == failure.links[0].message.headline for known in alike)
        if len(alike) < KEPT and not (repeated and failure.standing is Standing.ECHO):
            self._fatal.append(failure)

    def _when(self, failure: Failure) -> str:
        """Return its time; within a burst, January follows December."""
        months = {known.time[:2] for known in self._fatal}
        turn = {"01", "12"} <= months and failure.time[:2] == "01"
        return f"13-{failure.time}" if turn else failure.time

    def _root(self, failure: Failure) -> RootCause:
        text, *others = failure.texts()
        if printed := _printed_before(failure, text):
            text = f"{text[: LENGTH // 2]}: {printed}"[:LENGTH]
        return RootCause(text, tuple(others), failure.standing, failure.fatal)


def _printed_before(failure: Failure, text: str) -> str:
    """Return what a kernel or a compiler printed by itself, shortly before an exception that does not repeat it."""
    if "device-side assert" in text:
        return next((line for line in failure.printed if "Assertion" in line), "")
    if "NCCL error" in text and not failure.root.message.reason:
        return next((line for line in failure.printed if line.startswith("NCCL: ")), "")
    if _FROM_COMPILER.search(text) and not failure.root.message.reason:
        return next((line for line in failure.printed if "Assertion" not in line and not line.startswith("NCCL: ")), "")
    return ""
