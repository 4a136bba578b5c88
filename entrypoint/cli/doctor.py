"""`dsv4 doctor`: report every problem of this host and this checkpoint before a start."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from . import arguments
from .output import answer
from .this_machine import this_machine

if TYPE_CHECKING:
    from ..doctor.options import DoctorOptions
    from ..doctor.report import DoctorReport
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "doctor",
        "Report every problem of this host and this checkpoint at once.",
        run,
        details="Nothing is started.",
        takes_vllm_flags=True,
        epilog=f"Exit status 69: the host prevents a start; 78: the request or checkpoint does. {arguments.VLLM_FLAGS}",
    )
    arguments.add_collective(parser, "between several GPUs")
    arguments.add_format(parser)
    arguments.add_plan(parser)
    parser.set_defaults(online=True)


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Print the problems; the exit status says whether a start would succeed."""
    from ..catalog.catalog import Catalog
    from ..doctor import run as doctor
    from ..resolve import environment
    from .request import request

    settings = doctor_options(options, serving=False)
    report = doctor.doctor(Catalog(environment.folders()), request(options, argv), this_machine(), settings)
    answer(options, report.to_json, lambda: text(report))
    return report.exit_status


def doctor_options(options: argparse.Namespace, *, serving: bool) -> DoctorOptions:
    """Return what to check: the doctor checks more than `serve`. Progress is printed."""
    from ..doctor.options import DoctorOptions
    from . import log

    log.to_stderr()
    collective = options.collective if serving or options.collective is not None else True
    return DoctorOptions(os.environ, collective, compare=not serving, serving=serving)


def text(report: DoctorReport) -> str:
    """Return what was seen, what is needed and the fix for every problem, and what was not checked."""
    lines: list[str] = []
    for diagnosis in report.diagnoses:
        problem = diagnosis.problem
        lines.append(f"{'problem' if problem.fatal else 'note'} {diagnosis.name}: {problem.seen}")
        lines += [f"    needed: {problem.needed}"] if problem.needed else []
        lines += [f"    fix:    {problem.fix}", ""]
    lines += [f"not checked: {part}" for part in report.not_checked]
    count = len(report.fatal)
    if not count:
        return "\n".join([*lines, "No problem would prevent a start."])
    what = f"{count} problem{'s' * (count > 1)} would prevent a start" + "; --skip NAME overrides one."
    return "\n".join([*lines, what])
