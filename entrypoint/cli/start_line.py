"""The line of `dsv4 serve` on a terminal: how far the start is, below our messages and vLLM's log."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from .output import ABOVE
from .updating_line import UpdatingLine

if TYPE_CHECKING:
    from ...healthcheck.state import Health

PAUSE = 0.5  # seconds between two looks at the start
HELD = 1 << 16  # bytes of an unfinished line that wait for their end
Write = Callable[[int, bytes], bool]


class StartLine(UpdatingLine):
    """
    Shows the start of `health` until the replica is ready or ends; nothing in a pipe.

    vLLM's log comes in its own threads, through `write`. While there is a line, only whole lines of it pass: a
    progress bar that vLLM writes over would end up in ours, which has the same figures.
    """

    health: Health | None = None

    def __init__(self, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__(stream, environ)
        self._lock = threading.RLock()
        self._held: dict[int, bytes] = {}
        self._over, self._stop = not self._columns, threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def writer(self, plain: Write) -> Write | None:
        """Return how vLLM's log is written; None where there is no line. `plain` writes to a file descriptor."""
        if not self._columns:
            return None

        def write(out: int, chunk: bytes) -> bool:
            if not os.isatty(out):
                return plain(out, chunk)
            with self._lock:
                if not self._over:
                    chunk = self._whole_lines(out, chunk)
                if not chunk:
                    return True
                with self._above():
                    return plain(out, chunk)

        return write

    def __enter__(self) -> Self:
        if self._columns:
            ABOVE.line = self._above
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._columns:
            self._thread.join(1.0)  # a stopped terminal holds it
            ABOVE.line = contextlib.nullcontext
        super().__exit__(kind, error, trace)

    @contextlib.contextmanager
    def _above(self) -> Iterator[None]:
        """Take the line away for the block, and bring it back."""
        with self._lock:
            self._clear()
            yield
            self._draw()

    def _clear(self) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone must not end the thread that reads vLLM's log
            super()._clear()

    def _follow(self) -> None:
        while not self._over and not self._stop.wait(PAUSE):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        health = self.health
        if self._over or health is None:
            return
        if health.ready_after is not None or health.draining or health.ended:
            self._over = True
            self._clear()
            for out, rest in self._held.items():
                with contextlib.suppress(OSError):
                    os.write(out, rest)
            return
        from ...healthcheck import checks

        with contextlib.suppress(OSError):
            self._show(checks.start_state(health, time.monotonic()))

    def _whole_lines(self, out: int, chunk: bytes) -> bytes:
        """Return the lines that are whole, each without what was written over in it, and keep the rest."""
        whole, newline, rest = (self._held.pop(out, b"") + chunk).rpartition(b"\n")
        if len(rest) > HELD:
            return whole + newline + rest
        if rest:
            self._held[out] = rest[rest.rfind(b"\r", 0, -1) + 1 :]
        lines = (line.rstrip(b"\r").rpartition(b"\r")[2] for line in whole.split(b"\n"))
        return b"\n".join(lines) + newline if newline else b""


def to_stderr(*, json: bool) -> StartLine:
    """Return the line on stderr; a log of JSON objects has none."""
    return StartLine(sys.stderr, {} if json else os.environ)
