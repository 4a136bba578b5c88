"""`dsv4 profiles`: list what can be served by name."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..text_table import table
from . import arguments
from .output import answer

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add("profiles", "List the profiles and what was measured with each.", run)
    arguments.add_format(parser)


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Print the profiles."""
    from ..catalog import listing
    from ..catalog.catalog import Catalog
    from ..resolve import environment

    entries = listing.listing(Catalog(environment.folders()))
    return answer(options, lambda: entries, lambda: text(entries))


def text(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return one row for each profile, followed by its measured figures."""
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
        out += [line, *(f"    {part}" for note in notes.get(number, []) for part in note.splitlines())]
    return "\n".join(out)


def _figure(measured: Mapping[str, str]) -> str:
    return "{what}\n    {hardware}, {model}, vLLM {vllm}, {date}; {source}".format(**measured)
