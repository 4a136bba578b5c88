"""
Read vLLM's log in the event loop: bytes from the threads that pass it on, lines for those who follow it.

The loop reads a slice at a time, so that probes and signals never wait for more than one. What comes faster than it can
be read waits in a bounded backlog; beyond that the oldest bytes are dropped, because the end of a log has the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..vllm_log.parser import LogLine, Splitter

BACKLOG = 16 << 20  # bytes: a cause, and the echoes of a thousand requests after it
SLICE = 1 << 14  # bytes read in one step of the loop: 20 ms for lines of 10 bytes (2 cores, 2026-11-28)
REPORT_EVERY = 60.0  # seconds between two messages on dropped lines
log = logging.getLogger(__name__)


@dataclass(eq=False)
class LogStream:
    """One stream of the log; `torn` when bytes of it were dropped since the last one that was read."""

    splitter: Splitter = field(default_factory=Splitter)
    torn: bool = False


class LogReader:
    """`on_line` gets each line, in the event loop."""

    def __init__(self, on_line: Callable[[LogLine], None]) -> None:
        self._on_line, self._loop = on_line, asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._backlog: deque[tuple[LogStream, bytes]] = deque()
        self._bytes, self._dropped, self._scheduled = 0, 0, False
        self._reported = time.monotonic() - REPORT_EVERY

    def feed(self, stream: LogStream, chunk: bytes) -> None:
        """Take bytes of one stream; called in any thread, with at most one wake-up of the loop for each call."""
        with self._lock:
            self._backlog.append((stream, chunk))
            self._bytes += len(chunk)
            while self._bytes > BACKLOG:
                oldest, lost = self._backlog.popleft()
                oldest.torn = True
                self._bytes -= len(lost)
                self._dropped += lost.count(b"\n")
            if self._scheduled:
                return
            self._scheduled = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: this process is ending
            self._loop.call_soon_threadsafe(self._step)

    def close(self, stream: LogStream) -> None:
        """Take the end of one stream, which may be in the middle of a line."""
        self.feed(stream, b"\n")

    async def finish(self) -> None:
        """Read all that is left, while the loop goes on."""
        while self._read():
            await asyncio.sleep(0)
        self._report()

    def _step(self) -> None:
        """Read a slice, then leave the loop and the other threads as much time as that took."""
        began = time.monotonic()
        more = self._read()
        if began - self._reported >= REPORT_EVERY:
            self._report()
        if more:
            self._loop.call_later(time.monotonic() - began, self._step)

    def _read(self) -> bool:
        """Read a slice, and tell whether there may be more."""
        with self._lock:
            if not self._backlog:
                self._scheduled = False
                return False
            stream, chunk = self._backlog.popleft()
            if len(chunk) > SLICE:
                self._backlog.appendleft((stream, chunk[SLICE:]))
                chunk = chunk[:SLICE]
            self._bytes -= len(chunk)
            torn, stream.torn = stream.torn, False
        if torn:  # what was dropped began in one line and ended in another
            stream.splitter.close()
            chunk = chunk.partition(b"\n")[2]
        for line in stream.splitter.feed(chunk):
            try:
                self._on_line(LogLine.parse(line))
            except Exception as error:  # an error of ours in one line ends nothing
                self._loop.call_exception_handler({"message": "a line of vLLM's log", "exception": error})
        return True

    def _report(self) -> None:
        """Log how many lines were dropped since the last report."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self._reported = time.monotonic()
            log.warning(
                f"{dropped} lines of vLLM's log came too fast to be searched for phases and causes."
                " They were passed on like all others."
            )
