"""Split vLLM's log into lines, and a line into its process, level, time and text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

LINE_BYTES = 8192
"""Of a longer line the beginning is kept; vLLM's longest useful one, its config, has 5 KiB."""
JSON_BYTES = 1 << 18
"""The same for a JSON object: it holds a whole traceback."""

_END = re.compile(rb"[\r\n]")  # a progress bar of tqdm begins each of its states with \r
_COLOR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LEVELS = "DEBUG|INFO|WARNING|ERROR|CRITICAL"
_PROCESS = r"\((?P<process>[^()\s]+) pid=\d+(?:, ip=[^()\s]+)?\) ?"  # Ray adds the host
_RECORD = rf"(?P<level>{_LEVELS}) (?P<time>\d\d-\d\d \d\d:\d\d:\d\d) \[(?P<source>[^\]]*)\] ?"
_LINE = re.compile(
    # vllm/logger.py _FORMAT, or uvicorn's `INFO:     text`; PyTorch's C++ logs `[E1122 04:49:58.3 file:1] text`
    rf"(?:{_PROCESS})?(?:{_RECORD}|(?P<uvicorn>{_LEVELS}): +)?(?P<text>.*)"
)
_PREFIXED = re.compile(rf".{{1,200}}?{_PROCESS}{_RECORD}(?P<text>.*)")  # VLLM_LOGGING_PREFIX
_JSON_FIELD = re.compile(r'"(\w+)": ?"((?:[^"\\]|\\.)*)')
_JSON_NAMES = {
    "text": ("message", "msg", "event"),
    "exception": ("exc_info", "exc_text", "exception", "stack_info"),
    "level": ("levelname", "level", "severity"),
    "process": ("vllm_process_name", "processName"),
    "source": ("name", "logger", "filename"),
    "time": ("asctime", "timestamp"),
}


@dataclass(frozen=True)
class LogLine:
    """
    One line. `process` is `APIServer`, `EngineCore`, `Worker_TP1`, or empty where the line has none.

    `level` is empty for lines that no logger wrote: tracebacks of a dying process, progress bars, C++.
    A line of the JSON formatter holds a whole record: its `text` has several lines.
    """

    text: str
    process: str = ""
    level: str = ""
    source: str = ""
    time: str = field(default="", compare=False)
    """Month, day and time, as text that sorts; empty where the line has none."""

    @classmethod
    def parse(cls, line: str) -> LogLine:
        """Read a line without its end."""
        if line.startswith("{") and (record := _json_record(line)):
            return cls(**record)
        match = _LINE.fullmatch(line)
        if match is None:
            return cls(line)
        if not (match["level"] or match["uvicorn"]) and " pid=" in line and (prefixed := _PREFIXED.fullmatch(line)):
            match = prefixed
        parts = match.groupdict(default="")
        return cls(
            parts["text"], parts["process"], parts["level"] or parts.get("uvicorn", ""), parts["source"], parts["time"]
        )

    def split(self) -> list[LogLine]:
        """Return one line for each line of the text."""
        if "\n" not in self.text:
            return [self]
        return [
            LogLine(text, self.process, self.level, self.source, self.time)
            for text in self.text.splitlines()
            if text.strip()
        ]


def _json_record(line: str) -> dict[str, str] | None:
    """Return the fields of a JSON object that python-json-logger wrote; None where it is something else."""
    try:
        fields: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):  # cut off, or no record of a logger
        fields = {name: _unescaped(text) for name, text in _JSON_FIELD.findall(line)}
    record = {ours: _first(fields, names) for ours, names in _JSON_NAMES.items()}
    record["level"] = record["level"].upper()
    if record["level"] not in _LEVELS.split("|"):
        return None
    if exception := record.pop("exception"):
        record["text"] = f"{record['text']}\n{exception}"
    record["time"] = re.sub(r"^\d{4}-", "", record["time"]).replace("T", " ").replace(",", ".")
    return record


def _first(fields: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((value for name in names if isinstance(value := fields.get(name), str) and value), "")


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


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
        most = JSON_BYTES if (self._partial or piece)[:1] == b"{" else LINE_BYTES
        self._partial += piece[: most - len(self._partial)]
