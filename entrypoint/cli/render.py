"""Plans and profiles as text. Pure: returns strings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..plan import DEFAULT, Plan, Setting, Value, shown
from ..text_table import table

if TYPE_CHECKING:
    from ..doctor.report import DoctorReport
    from ..weights.hub import Status
    from ..weights.manifest import Verified


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


def report(seen: DoctorReport) -> str:
    """Return every problem with what was seen, what is needed and the fix, and what was not looked at."""
    lines: list[str] = []
    for one in seen.diagnoses:
        problem = one.problem
        lines.append(f"{'problem' if problem.fatal else 'note'} {one.name}: {problem.seen}")
        lines += [f"    needed: {problem.needed}"] if problem.needed else []
        lines += [f"    fix:    {problem.fix}", ""]
    lines += [f"not looked at: {part}" for part in seen.not_checked]
    count = len(seen.fatal)
    if not count:
        return "\n".join([*lines, "Nothing seen stands in the way of a start."])
    what = f"{count} problem{'s' * (count > 1)} would stop a start" + "; --skip NAME overrides one."
    return "\n".join([*lines, what])


def status(seen: Status) -> str:
    """Return what of a repository is here."""
    named = f"{seen.repository}@{seen.revision[:12]}" if seen.revision else seen.repository
    if seen.folder is None:
        left = "" if seen.missing_size is None else f"; {seen.missing_size / 1e9:.2f} GB to fetch"
        return f"{named}: nothing is here{left}."
    here = f"{named}: {seen.files} files, {seen.size / 1e9:.2f} GB in {seen.folder} (by {seen.source})"
    if not seen.missing:
        return f"{here}; complete." if seen.complete else f"{here}; no list says what belongs to it."
    left = "" if seen.missing_size is None else f", {seen.missing_size / 1e9:.2f} GB"
    return "\n".join([f"{here}; missing {len(seen.missing)}{left}:", *(f"  {path}" for path in seen.missing)])


def verified(seen: Verified) -> str:
    """Return what became of a verification."""
    head = f"{seen.repository}@{seen.revision[:12]}: {seen.checked} files, {seen.size / 1e9:.2f} GB in {seen.folder}"
    named = {"missing": seen.missing, "wrong": seen.wrong, "from elsewhere": seen.foreign}
    lines = [f"  {what}: {path}" for what, paths in named.items() for path in paths]
    return "\n".join([f"{head}: {'every byte is right' if seen.whole else 'not right'}.", *lines])


def _figure(measured: Mapping[str, str]) -> str:
    return "{what} ({hardware}, {model}, vLLM {vllm}, {date}; {source})".format(**measured)


def _text(name: str, value: Value) -> str:
    value = shown(name, value)
    return value if isinstance(value, str) else json.dumps(value)


def setting_line(name: str, setting: Setting) -> str:
    """Return `name = value (origin)`."""
    return f"{name} = {_text(name, setting.value)} ({setting.origin})"
