"""
Group vLLM's log into records, so that a message or a traceback of many lines stays whole.

vLLM writes each line of a message with the same prefix and ends all but the last with \\r\\n (NewLineFormatter). A
traceback that no logger wrote has no level: its lines follow each other, each process with its own prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..json_log import REQUEST
from .parser import LogLine

MOST = 1 << 18  # bytes of one record, as much as Loki takes by default
_COLOR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TRACEBACK = re.compile(r"(?:\[rank\d+\]: )?(?:  [+|] )?(?:Exception Group )?Traceback \(most recent call last\)")
_FAILED = ("ERROR", "CRITICAL")


@dataclass
class VllmRecord:
    """One record: its first line, and the text of all."""

    first: LogLine
    texts: list[str]
    unfinished: bool
    """Whether the writer said that more lines follow."""
    size: int = 0

    @property
    def failed(self) -> bool:
        """Whether lines without a level belong to it: it is a traceback, or the headline of one."""
        return self.first.level in _FAILED or bool(_TRACEBACK.match(self.texts[0]))

    @property
    def level(self) -> str:
        """Its own, else what it looks like."""
        return self.first.level or ("ERROR" if self.failed else "INFO")

    @property
    def message(self) -> str:
        """All of its lines."""
        return "\n".join(self.texts).rstrip()

    def takes(self, line: LogLine) -> bool:
        """Tell whether a line of the same process goes on with this record; that of a request never does."""
        if self.size >= MOST:
            return False
        if self.unfinished and (line.level, line.time, line.source) == (
            self.first.level, self.first.time, self.first.source,
        ):  # fmt: skip
            return True
        return self.failed and not line.level and not line.text.startswith(REQUEST)

    def add(self, line: LogLine, *, unfinished: bool) -> None:
        """Add a line."""
        self.texts.append(line.text)
        self.size += len(line.text)
        self.unfinished = unfinished


@dataclass
class RecordReader:
    """One stream of the log. Records that may go on wait for the next line of their process, or for `flush`."""

    _partial: bytearray = field(default_factory=bytearray)
    _open: dict[str, VllmRecord] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """Whether a record waits."""
        return bool(self._open)

    def feed(self, chunk: bytes) -> Iterator[VllmRecord]:
        """Yield the records that this chunk ends."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._append(piece)
            raw, self._partial = bytes(self._partial), bytearray()
            yield from self._line(raw)
        self._append(rest)

    def flush(self) -> Iterator[VllmRecord]:
        """Yield the records that wait: nothing came after them."""
        waiting, self._open = self._open, {}
        yield from waiting.values()

    def close(self) -> Iterator[VllmRecord]:
        """Yield all that is left at the end of the stream."""
        if self._partial:
            raw, self._partial = bytes(self._partial), bytearray()
            yield from self._line(raw)
        yield from self.flush()

    def _append(self, piece: bytes) -> None:
        self._partial += piece[: MOST - len(self._partial)]

    def _line(self, raw: bytes) -> Iterator[VllmRecord]:
        unfinished = raw.endswith(b"\r")
        states = _COLOR.sub("", raw.decode(errors="replace")).rstrip("\r").split("\r")  # of a progress bar
        line = LogLine.parse(states[-1])
        before = self._open.get(line.process)
        if before and before.takes(line):
            before.add(line, unfinished=unfinished)
        else:
            if before:
                yield self._open.pop(line.process)
            if not line.text.strip():
                return
            self._open[line.process] = before = VllmRecord(line, [line.text], unfinished)
        if not (before.unfinished or before.failed):
            yield self._open.pop(line.process)
