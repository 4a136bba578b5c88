"""`dsv4 doctor`: every problem of this host and this checkpoint, before anything is started."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from . import arguments
from .output import answer, say

if TYPE_CHECKING:
    from ..doctor.report import Report
    from ..doctor.run import Around
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "doctor",
        "Report every problem of this host and this checkpoint at once.",
        run,
        details="Nothing is started.",
        takes_vllm_flags=True,
        epilog=f"Exit status 69: this host lets no start through; 78: the request does not. {arguments.VLLM_FLAGS}",
    )
    arguments.add_collective(parser)
    arguments.add_format(parser)
    arguments.add_plan(parser)


def run(options: argparse.Namespace, words: list[str]) -> int:
    """Print what was found; the exit status says whether a start would go through."""
    from ..catalog.catalog import Catalog
    from ..doctor import run as doctor
    from ..resolve import environment
    from .request import request

    report = doctor.doctor(Catalog(environment.folders()), request(options, words), around(options, serving=False))
    answer(options, report.to_json, lambda: text(report))
    return report.exit_status


def around(options: argparse.Namespace, *, serving: bool) -> Around:
    """Return what the doctor looks with."""
    from ..doctor.run import Around

    tried = options.collective if serving or options.collective is not None else True
    return Around(os.environ, say, tried, compare=not serving, serving=serving, patches=_patches)


def _patches() -> frozenset[str] | None:
    """Return the names of the patches in the installed vLLM, None where there is none to be read."""
    from ..supervisor import provenance

    states = provenance.patches().get("patches")
    return None if states is None else frozenset(p["name"] for p in states if p["state"] == "applied")


def text(seen: Report) -> str:
    """Return every problem with what was seen, what is needed and the fix, and what was not looked at."""
    lines: list[str] = []
    for one in seen.found:
        problem = one.problem
        lines.append(f"{'problem' if problem.fatal else 'note'} {one.name}: {problem.seen}")
        lines += [f"    needed: {problem.needed}"] if problem.needed else []
        lines += [f"    fix:    {problem.fix}", ""]
    lines += [f"not looked at: {part}" for part in seen.unseen]
    count = len(seen.fatal)
    if not count:
        return "\n".join([*lines, "Nothing seen stands in the way of a start."])
    what = f"{count} problem{'s' * (count > 1)} would stop a start" + "; --skip NAME overrides one."
    return "\n".join([*lines, what])
