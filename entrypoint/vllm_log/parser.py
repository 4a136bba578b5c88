"""Split vLLM's log into lines, and a line into its process, level and text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LINE_BYTES = 8192
"""Of a longer line the beginning is kept; vLLM's longest useful one, its config, has 5 KiB."""

_END = re.compile(rb"[\r\n]")  # a progress bar of tqdm begins each of its states with \r
_COLOR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LINE = re.compile(
    # vllm/logger.py _FORMAT, or uvicorn's `INFO:     text`; PyTorch's C++ logs `[E1122 04:49:58.3 file:1] text`
    r"(?:\((?P<process>[\w-]+) pid=\d+\) )?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[(?P<source>[^\]]*)\] "
    r"|(?P<uvicorn>DEBUG|INFO|WARNING|ERROR|CRITICAL): +)?"
    r"(?P<text>.*)"
)


@dataclass(frozen=True)
class LogLine:
    """
    One line. `process` is `APIServer`, `EngineCore`, `Worker_TP1`, or empty where the line has none.

    `level` is empty for lines that no logger wrote: tracebacks of a dying process, progress bars, C++.
    """

    text: str
    process: str = ""
    level: str = ""
    source: str = ""

    @classmethod
    def parse(cls, line: str) -> LogLine:
        """Read a line without its end."""
        match = _LINE.fullmatch(line)
        if match is None:
            return cls(line)
        level = match["level"] or match["uvicorn"] or ""
        return cls(match["text"], match["process"] or "", level, match["source"] or "")


@dataclass
class Splitter:
    """Turns chunks of bytes into lines at \\n or \\r; empty lines are dropped, invalid UTF-8 is replaced."""

    _partial: bytearray = field(default_factory=bytearray)

    def feed(self, chunk: bytes) -> list[str]:
        """Return the lines that this chunk ends."""
        *ended, rest = _END.split(chunk)
        lines = []
        for piece in ended:
            self._append(piece)
            lines.append(self.rest)
            self._partial.clear()
        self._append(rest)
        return [line for line in lines if line.strip()]

    @property
    def rest(self) -> str:
        """The text after the last line's end: the newest state of a progress bar, or half a line."""
        return _COLOR.sub("", self._partial.decode(errors="replace"))

    def close(self) -> list[str]:
        """Return the last line when nothing ended it."""
        rest = self.rest
        self._partial.clear()
        return [rest] if rest.strip() else []

    def _append(self, piece: bytes) -> None:
        self._partial += piece[: max(0, LINE_BYTES - len(self._partial))]
