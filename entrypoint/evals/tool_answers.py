"""The answers of `dsv4 eval tools` in a file of JSON lines that survives being killed."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from .. import plain_file
from ..client.answers import Reply
from ..errors import ConfigError, HostError

Key = tuple[str, int, int]
"""Scenario, round and turn."""
_REPLY = TypeAdapter(Reply)


class ToolAnswers:
    """Every turn that was answered, with the fault that its stream showed by itself; close it when done."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HostError(f"{path} is in use by another `dsv4 eval`; wait for it, or stop it.") from None
        text = self._file.read()
        whole = text[: text.rfind(b"\n") + 1]  # a kill may leave half a line
        try:
            lines = map(plain_file.parse_json, whole.splitlines()[1:])  # the first holds the sampling
            self.known: dict[Key, tuple[Reply, str]] = {_key(line): _answer(line) for line in lines}
        except (ValueError, LookupError, TypeError) as error:
            self.close()
            raise ConfigError(
                f"{path}: a line does not hold an answer ({str(error).splitlines()[0]}); move the folder away, or"
                " start again without --resume."
            ) from None
        self._file.truncate(len(whole))
        self._file.seek(0, os.SEEK_END)

    def keep(self, key: Key, reply: Reply, fault: str, seconds: float) -> None:
        """Write one answer immediately."""
        self.known[key] = (reply, fault)
        name, number, turn = key
        line = {"scenario": name, "round": number, "turn": turn, "fault": fault, "seconds": round(seconds, 3)}
        self._file.write(json.dumps({**line, "reply": asdict(reply)}, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _key(line: dict[str, Any]) -> Key:
    return str(line["scenario"]), int(line["round"]), int(line["turn"])


def _answer(line: dict[str, Any]) -> tuple[Reply, str]:
    return _REPLY.validate_python(line["reply"]), str(line["fault"])
