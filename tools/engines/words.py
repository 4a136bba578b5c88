"""What pydantic found wrong with an entry or a result, in plain words."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from dsv4_serve.entrypoint.validation import reason

PLAIN = {
    "missing": "is missing",
    "extra_forbidden": "is not a key that is known here",
    "model_type": "has to be a table of keys and values",
}


def wrong(error: ValidationError, source: Any) -> str:
    """Return the first error: where it is, with the title of a session or the number of an entry, and what it is."""
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    where = _where(first["loc"], source)
    if first["type"] in PLAIN:
        return f"{where or 'it'} {PLAIN[first['type']]}"
    return f"{where}: {reason(first['msg'])}" if where else reason(first["msg"])


def _where(place: tuple[int | str, ...], source: Any) -> str:
    said: list[str] = []
    for part in place:
        if isinstance(part, int) and isinstance(source, list):
            source = source[part]
            title = source.get("title") if isinstance(source, dict) else None
            said[-1] = f"{said[-1]} {repr(title) if title else part + 1}"
        elif isinstance(source, dict):
            said.append(f"`{part}`")
            source = source.get(part)
        else:  # what pydantic calls a kind of value, where several are allowed
            break
    return ", ".join(said)
