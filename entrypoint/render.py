"""Plans and profiles as text. Pure: returns strings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dsv4_serve.entrypoint.plan import DEFAULT, Plan, Setting, Value, shown


def plan(resolved: Plan) -> str:
    """Return every setting with its value and origin, what it replaced beneath, and the command last."""
    rows: list[tuple[str, str, str]] = []
    for title, settings in _parts(resolved):
        if title and settings:
            rows += [("", "", ""), (title, "", "")]
        for name, setting in settings.items() if not title else sorted(settings.items()):
            rows.append((name, _text(name, setting.value), setting.origin))
            rows += [("", _text(name, s.value), f"overridden: {s.origin}") for s in setting.overridden]
    return f"{table(rows)}\n\n{resolved.command()}"


def _parts(resolved: Plan) -> list[tuple[str, Mapping[str, Setting]]]:
    """Return the parts of a plan by title; of what the supervisor goes by, only what differs from the defaults."""
    changed = {name: s for name, s in resolved.supervision.items() if s.origin != DEFAULT}
    parts = {"": resolved.choices, "flags": resolved.flags, "environment": resolved.env, "supervision": changed}
    return list(parts.items())


def profiles(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return one row a profile, and what was measured beneath it."""
    lines: list[tuple[str, ...]] = [("profile", "context x requests", "TP", "models", "hardware")]
    notes: dict[int, list[str]] = {}
    for entry in entries:
        lines.append(
            (
                entry["name"],
                f"{entry['context']} x {entry['requests']}",
                ",".join(map(str, entry["tensor-parallel-sizes"])) or "any",
                " ".join(entry["models"]) or "any",
                " ".join(entry["hardware"]) or "any",
            )
        )
        notes[len(lines) - 1] = [_figure(m) for m in entry["measured"]] or ["unmeasured"]
    out = []
    for number, line in enumerate(table(lines).splitlines()):
        out += [line, *(f"    {note}" for note in notes.get(number, []))]
    return "\n".join(out)


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return left-aligned columns, two spaces apart; a column wider than 44 characters does not push the next."""
    widths = [min(max(len(row[i]) for row in rows), 44) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _figure(measured: Mapping[str, str]) -> str:
    return "{what} ({hardware}, {model}, vLLM {vllm}, {date}; {source})".format(**measured)


def _text(name: str, value: Value) -> str:
    value = shown(name, value)
    return value if isinstance(value, str) else json.dumps(value)


def setting_line(name: str, setting: Setting) -> str:
    """Return `name = value (origin)`."""
    return f"{name} = {_text(name, setting.value)} ({setting.origin})"
