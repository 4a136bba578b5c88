"""vLLM's log: bytes of a pipe into lines, and a line into the process, the level and the text that it carries."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LINE_BYTES = 8192
"""Of a longer line the beginning is kept; vLLM's longest useful one, its config, has 5 KiB."""

_END = re.compile(rb"[\r\n]")  # a progress bar of tqdm begins each of its states with \r
_COLOR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RECORD = re.compile(
    # vllm/logger.py _FORMAT, or uvicorn's `INFO:     text`; PyTorch's C++ logs `[E1122 04:49:58.3 file:1] text`
    r"(?:\((?P<process>[\w-]+) pid=\d+\) )?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[(?P<source>[^\]]*)\] "
    r"|(?P<uvicorn>DEBUG|INFO|WARNING|ERROR|CRITICAL): +)?"
    r"(?P<text>.*)"
)


@dataclass(frozen=True)
class Record:
    """
    One line. `process` is `APIServer`, `EngineCore`, `Worker_TP1`, or empty where the line does not say.

    `level` is empty for what no logger wrote: tracebacks of a dying process, progress bars, C++.
    """

    text: str
    process: str = ""
    level: str = ""
    source: str = ""

    @classmethod
    def of(cls, line: str) -> Record:
        """Read a line without its end."""
        found = _RECORD.fullmatch(line)
        if found is None:
            return cls(line)
        return cls(
            found["text"], found["process"] or "", found["level"] or found["uvicorn"] or "", found["source"] or ""
        )


@dataclass
class Splitter:
    """Turns chunks of bytes into lines at \\n or \\r; empty lines are dropped, invalid UTF-8 is replaced."""

    _held: bytearray = field(default_factory=bytearray)

    def feed(self, chunk: bytes) -> list[str]:
        """Return the lines that this chunk ends."""
        *ended, rest = _END.split(chunk)
        lines = []
        for piece in ended:
            self._hold(piece)
            lines.append(self.rest)
            self._held.clear()
        self._hold(rest)
        return [line for line in lines if line.strip()]

    @property
    def rest(self) -> str:
        """What came after the last line's end: the newest state of a progress bar, or half a line."""
        return _COLOR.sub("", self._held.decode(errors="replace"))

    def close(self) -> list[str]:
        """Return the last line when nothing ended it."""
        rest = self.rest
        self._held.clear()
        return [rest] if rest.strip() else []

    def _hold(self, piece: bytes) -> None:
        self._held += piece[: max(0, LINE_BYTES - len(self._held))]
