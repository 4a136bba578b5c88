"""`dsv4 qualify`: show on this machine, before any download, that a plan is computed, drafted and served rightly."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .output import answer, print_message
from .this_machine import this_machine

if TYPE_CHECKING:
    from ..doctor.report import DoctorReport
    from ..machine.gpus import HostGpus
    from .parser import Commands

STAGES = ("host", "all-reduce", "known-answers", "load", "depth", "faults", "numerics", "full-size")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "qualify",
        "Show before a download that this box serves a plan correctly.",
        run,
        details="Small checkpoints in the layout of the model are served with the plan's flags; no weights are needed.",
        takes_vllm_flags=True,
        epilog=f"Exit status 1: a stage failed, or time ran out. {arguments.VLLM_FLAGS}",
    )
    parser.add_argument(
        "--minutes",
        type=arguments.above_zero("number of minutes", 1440),
        default=15.0,
        metavar="N",
        help="use N minutes at most; finished stages are kept for the next run (default: 15)",
    )
    parser.add_argument(
        "--only",
        metavar="STAGE",
        action="append",
        default=[],
        choices=STAGES,
        help=f"run this stage only; repeatable ({', '.join(STAGES)})",
    )
    arguments.add_format(parser)
    arguments.add_out(parser, "write the result and its page to this folder")
    arguments.add_share(parser)
    arguments.add_plan(parser)
    parser.set_defaults(online=True)


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Run the stages, keep the result, and print the verdict; 1 where it is not a clean one."""
    from .. import folder_lock, shared_result
    from ..bench.options import START_SECONDS, ServeOptions
    from ..client.local_replica import Stopped
    from ..qualify import command
    from ..qualify.box import Box
    from . import log, own_secrets
    from .request import resolved

    log.to_stderr()
    own_secrets.hide(argv)
    shared = Path(options.share) if options.share else None
    shared_result.check_writable(shared)
    folder = command.folder(os.environ)
    with folder_lock.locked(folder, "`dsv4 qualify`"):
        _construct(options, argv)
        selection, plan = resolved(options, argv)
        given = {name: getattr(options, name) for name in ("hardware", "nccl") if getattr(options, name) is not None}
        chosen = {"profile": selection.profile.name, "tp": str(selection.tensor_parallel_size)}
        serve = ServeOptions({**given, **chosen}, tuple(options.skip), tuple(argv), START_SECONDS)
        box = Box(
            selection=selection,
            plan=plan,
            machine=this_machine(),
            serve=serve,
            environ=os.environ,
            folder=folder,
            until=time.monotonic() + 60 * options.minutes,
            doctor=lambda: _doctor(options, argv),
        )
        try:
            report = command.qualify(box, options.minutes, options.only or STAGES, options.out)
        except Stopped:
            print_message("finished stages are kept: the same command continues with the rest.")
            raise
    answer(options, report.to_json, report.text)
    path, page = command.keep(report, options.out)
    print_message(f"result {path}, page {page}")
    if shared:
        command.share(report, shared, os.environ)
        print_message(f"{shared} can be published: attach it to an issue, with your name as `who`")
    return 0 if report.ok else 1


def _construct(options: argparse.Namespace, argv: list[str]) -> None:
    """Name the small checkpoint for a model that is nothing else, as that of profile demo-v4."""
    from ..catalog.catalog import Catalog
    from ..errors import ConfigError
    from ..machine import detect
    from ..qualify import command
    from ..resolve import auto, environment
    from ..resolve.select import select
    from .request import request

    def find() -> HostGpus:
        return detect.hardware_of(this_machine(), catalog)

    catalog, requested = Catalog(environment.folders()), request(options, argv)
    try:
        selection = select(catalog, auto.settle(catalog, requested, find), find)
    except ConfigError:
        return  # with every other problem, `resolved` reports it
    if selection.where is None and "model" not in selection.model.flags():
        options.model = f"{selection.model.name}={command.constructed(selection, os.environ)}"


def _doctor(options: argparse.Namespace, argv: list[str]) -> DoctorReport:
    from ..catalog.catalog import Catalog
    from ..doctor import run as doctor
    from ..doctor.options import DoctorOptions
    from ..resolve import environment
    from .request import request

    settings = DoctorOptions(os.environ, collective=False)
    return doctor.doctor(Catalog(environment.folders()), request(options, argv), this_machine(), settings)
