"""The log as JSON, one object a line: `DSV4_LOG_FORMAT=json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

VARIABLE = "DSV4_LOG_FORMAT"
OURS, VLLM = "dsv4", "vllm"
"""Sources of lines."""
REQUEST = '{"event": "request", '
"""How the line of a request in the usage by key begins (`healthcheck/key_usage.py`)."""
EVENT = ("event", "name", "path", "status", "whole", "prompt_tokens", "generated_tokens", "seconds")
"""The fields of that line."""

_COMMON = ("time", "level", "source", "message", "phase", "process", "logger")
"""The fields that a line of text has without their names, or not at all."""


@dataclass
class LogPhase:
    """The phase of this process's replica, which each line carries; empty before there is one."""

    current: Callable[[], str] = lambda: ""


PHASE = LogPhase()


def enabled(environ: Mapping[str, str]) -> bool:
    """Tell whether the log is to be JSON."""
    return environ.get(VARIABLE) == "json"


def line(source: str, level: str, message: str, **fields: Any) -> str:
    """Return one object without its end; empty fields are left out."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record = {"time": now, "level": level, "source": source, "message": message, "phase": PHASE.current()}
    return json.dumps(record | {name: value for name, value in fields.items() if value not in ("", None)})


def event(text: str) -> dict[str, Any]:
    """Return the fields of a line that the middleware of the keys wrote; empty for any other."""
    if not text.startswith(REQUEST):
        return {}
    try:
        fields = json.loads(text)
    except ValueError:
        return {}
    return {name: fields[name] for name in EVENT if name in fields}


def readable(text: str) -> str:
    """Return an object of `line` as text for people, with the fields that it has of its own; anything else as it is."""
    if not text.startswith('{"time": "'):
        return text
    try:
        record = json.loads(text)
        time, level, source, message = (str(record[name]) for name in ("time", "level", "source", "message"))
    except (ValueError, LookupError, TypeError):
        return text
    who = " ".join(str(part) for part in (source, record.get("process"), record.get("logger")) if part)
    own = "".join(f" {name}={json.dumps(value)}" for name, value in record.items() if name not in _COMMON)
    return f"{time[:19].replace('T', ' ')} {level} {who}: {message}{own}"
