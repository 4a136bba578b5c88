"""
Find the root cause in a log: a bounded list of notes on exceptions, errors and signals as the lines pass by.

vLLM reports one failure many times: the worker logs the exception, the engine core logs that the worker failed,
and the API server logs a third one. The root cause is the first fatal line of the last burst that is not an echo.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from dataclasses import dataclass, field, replace

from ..listen import API_PORT
from .parser import LogLine

KEPT = 64  # notes
BURST = 1000  # lines without a fatal one that separate two failures; one failure's tracebacks have about 500
LENGTH = 500  # characters of a note

# Headlines of tracebacks that end a process of the engine: v1/engine/core.py, v1/engine/async_llm.py,
# v1/executor/multiproc_executor.py, v1/utils.py; Python's multiprocessing.
_FATAL = re.compile(
    r"EngineCore (failed to start|encountered a fatal error)|WorkerProc (failed|hit an exception)"
    r"|AsyncLLM output_handler failed|Worker proc \S+ died unexpectedly|Exception occurred while running API servers"
    r"|Process \S+:$"
)
# Headlines of tracebacks that a process survives: uvicorn, threading, asyncio.
_SURVIVED = re.compile(r"Exception in|Task exception was never|Exception ignored|Future exception|Error in ")
# Lines that no logger wrote and that are no traceback: argparse, PyTorch's C++ and crash handlers, faulthandler.
_ALONE = re.compile(
    r"\S.*: error: |\[\w+\]:\[E\d{4} |\[E\d{4} |terminate called|what\(\):|!!!!!!! Segfault|Fatal Python error"
    r"|Segmentation fault|Bus error|Killed$|Failed: Cuda error"
)
# What is logged only because something else failed: v1/engine/{utils,exceptions,core_client}.py, v1/executor/.
_ECHO = re.compile(
    r"(Engine core|WorkerProc|Frontend process) (initialization )?failed|Executor failed|RuntimeError: cancelled"
    r"|EngineCore encountered an issue|Worker failed with error|Engine core process \S+ died|EngineGenerateError"
    r"|engine core exited unexpectedly|KeyboardInterrupt|SystemExit|(BrokenPipe|ConnectionReset|EOF)Error"
    r"|Process \S+ \(PID: \d+\) died|Worker proc \S+ died unexpectedly"
)
_PYDANTIC = 2  # lines after its exception that describe it: the field and the reason, or only the reason
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:: |$)")
_RANK = re.compile(r"\[rank\d+\]: ")  # PyTorch's excepthook puts it before each line
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_PORT = re.compile(r"non-default args: .*?'port': (\d+)")
_STOPPED = "[shutdown] API server: shutdown triggered"  # launcher.py, by SIGTERM or SIGINT; not when the engine died
_WAITING = re.compile(r"No available shared memory broadcast block found")  # shm_broadcast.py, at level INFO


@dataclass(frozen=True)
class Note:
    """One line without its prefix, its number in the log, and whether it ended a process."""

    text: str
    number: int
    fatal: bool
    overtaken: bool = False
    """Whether another exception was raised from this one."""

    @property
    def echo(self) -> bool:
        """Whether it only reports that something else failed."""
        return bool(_ECHO.search(self.text))


@dataclass
class _Stream:
    """The state of one process's traceback. Raw lines of all processes share one stream."""

    headline: str = ""
    headed: int = 0  # number of the headline's line
    tracing: bool = False
    chained: bool = False
    code: str = ""  # the traceback's last line of source: all that a bare assert shows
    ended: int = 0  # number of the line that ended the last traceback


@dataclass
class LogNotes:
    """Notes on one log, taken line by line."""

    port: int = API_PORT
    """vLLM's port, from the arguments that it logs, or else its default."""
    waiting: str = ""
    """The last line that reports one process waiting for another."""
    stopped: bool = False
    """Whether vLLM was asked to stop; later lines are noise of the shutdown."""
    _notes: deque[Note] = field(default_factory=lambda: deque(maxlen=KEPT))
    _streams: dict[str, _Stream] = field(default_factory=dict)
    _number: int = 0

    def feed(self, line: LogLine) -> None:
        """Take one line of the log."""
        self._number += 1
        if self.stopped:
            return
        if line.level in ("INFO", "DEBUG"):  # these may contain a user's prompt
            self._read_info(line)
            return
        stream = self._streams.setdefault(line.process if line.source else "", _Stream())
        text = _RANK.sub("", line.text)
        if text.startswith("Traceback (most recent call last)"):
            self._begin(stream, line.level)
        elif text.startswith(_CHAINED):
            stream.chained = True
        elif stream.tracing:
            self._traced(stream, text)
        elif stream.ended and self._number - stream.ended <= _PYDANTIC and " validation error" in self._notes[-1].text:
            self._continue(text)
        else:
            self._note(stream, line.level, text)

    def roots(self) -> list[Note]:
        """Return the possible causes, the likeliest first: what last ended a process and is not an echo."""
        fatal = [note for note in self._notes if note.fatal]
        while any(later.number - earlier.number > BURST for earlier, later in itertools.pairwise(fatal)):
            fatal.pop(0)
        notes = fatal or [note for note in self._notes if note.number > self._number - BURST]
        return sorted([note for note in notes if not note.echo] or notes, key=lambda note: note.overtaken)

    def _read_info(self, line: LogLine) -> None:
        if _WAITING.match(line.text):
            self.waiting = line.text[:LENGTH]
        elif match := _PORT.match(line.text):
            self.port = int(match[1])
        elif line.source and line.text.startswith(_STOPPED):
            self.stopped = True

    def _begin(self, stream: _Stream, level: str) -> None:
        stream.tracing = level != "WARNING"  # a process survives what is only a warning
        if stream.headed < stream.ended and not stream.chained:
            stream.headline = ""  # it belonged to the previous traceback

    def _note(self, stream: _Stream, level: str, text: str) -> None:
        if level in ("ERROR", "CRITICAL") or (not level and (_FATAL.match(text) or _SURVIVED.match(text))):
            stream.headline, stream.headed = text, self._number
        if level in ("ERROR", "CRITICAL"):
            self._add(text, fatal="died unexpectedly" in text)
        elif "engine core exited unexpectedly" in text or (not level and _ALONE.match(text)):
            self._add(text, fatal=True)

    def _traced(self, stream: _Stream, text: str) -> None:
        if text.startswith("    ") and not text.strip(" ^~"):
            return
        if text.startswith("    "):
            stream.code = text.strip()
        if not _EXCEPTION.match(text):
            return
        if stream.chained and self._notes:
            self._notes[-1] = replace(self._notes[-1], overtaken=True)
        message = text if ": " in text else f"{text}: {stream.code}"
        fatal = not stream.headline or bool(_FATAL.match(stream.headline))
        self._add(message, fatal=fatal)
        stream.tracing, stream.chained, stream.ended = False, False, self._number

    def _continue(self, text: str) -> None:
        last = self._notes[-1]
        self._notes[-1] = replace(last, text=f"{last.text} {text.strip()}"[:LENGTH])

    def _add(self, text: str, *, fatal: bool) -> None:
        self._notes.append(Note(text.strip()[:LENGTH], self._number, fatal))
