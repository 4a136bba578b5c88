"""`dsv4 tune`: find the settings that serve this box best, and write them into a profile."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .output import answer, print_message

if TYPE_CHECKING:
    from ..machine.gpus import HostGpus
    from ..request import Request
    from ..resolve.resolution import Resolution
    from ..tune.setups import Resolve
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "tune",
        "Try changes to a plan, and write the best into a profile.",
        run,
        details="`dsv4 serve` starts and proves each one, then stops it. An interrupted run continues.",
        takes_vllm_flags=True,
        epilog=f"Settings from the command line or the environment are not varied. {arguments.VLLM_FLAGS}",
    )
    group = parser.add_argument_group("what is tuned for")
    group.add_argument(
        "--for",
        dest="aim",
        choices=("latency", "throughput"),
        help="tune for one request, or for as many as the plan takes (default: both count the same)",
    )
    group.add_argument("--batch", type=arguments.count, nargs="+", metavar="N", help="tune for N requests at once")
    group.add_argument("--input", type=int, default=256, metavar="N", help="prompts of N tokens (default: 256)")
    group.add_argument(
        "--output", type=int, default=256, metavar="N", help="answers of N tokens (default: %(default)s)"
    )
    group.add_argument(
        "--requests-per-batch",
        type=arguments.count,
        default=4,
        metavar="R",
        help="send R requests for each concurrent one, 8 at least (default: %(default)s)",
    )
    parser.add_argument(
        "--hours", type=arguments.hours, default=1.0, metavar="H", help="take H hours at most (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="KIND",
        help="try these kinds of change only: drafts, experts, collectives, graphs, steps, scheduling, parallelism",
    )
    parser.add_argument("--name", metavar="NAME", help="name the new profile (default: the plan's name with -tuned)")
    parser.add_argument("--dry-run", action="store_true", help="list what would be tried, and start nothing")
    arguments.add_out(parser, "keep results in this folder")
    arguments.add_share(parser)
    arguments.add_format(parser)
    arguments.add_without_weights(parser)
    arguments.add_plan(parser)


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Measure, write what won, and print it."""
    from ..bench import options as benches
    from ..catalog.catalog import Catalog
    from ..errors import UsageError
    from ..resolve import auto, environment
    from ..shared_result import check_writable
    from ..supervisor import provenance
    from ..tune import command, profile_file, text
    from ..tune.options import tune_request
    from . import log, own_secrets
    from .request import request as plan_request
    from .this_machine import this_machine

    log.to_stderr()
    own_secrets.hide(argv)
    benches.check_warm(options)
    requested, folders = plan_request(options, argv), environment.folders()
    resolve = resolver(requested, folders)
    context = command.TuneContext(resolve("", []), requested, resolve, provenance.hardware(this_machine()))
    named = requested.choices.get("profile")
    if named and auto.is_auto(named):
        chosen = context.plan.plan.choices["profile"].value
        raise UsageError(f"`dsv4 tune` needs a fixed profile. Here `auto` chooses {chosen}: pass --profile {chosen}.")
    request = tune_request(options, context.plan.plan)
    found = command.proposal(context, request, options.acceptance)
    if options.dry_run:
        listed = [command.described(one) for one in found.candidates]
        body = {"candidates": listed, "left_out": dict(found.left_out)}
        shown = text.proposal(found.candidates, found.left_out, request.matrix.batches)
        return answer(options, lambda: body, lambda: shown)
    profile_file.check_place(request.name, folders, Catalog(folders))
    check_writable(request.share)
    if options.format == "text":
        print_message(text.proposal(found.candidates, found.left_out, request.matrix.batches))
    serve = benches.serve_options(options, argv)
    result = command.tune(found, context, request, serve, os.environ)
    result = command.finished(result, request, found.setups.profile, folders, Catalog(folders))
    return answer(options, lambda: result, lambda: text.outcome(result))


def resolver(request: Request, folders: Sequence[Path]) -> Resolve:
    """Return what resolves a profile for this host as `serve` would; no name is the one that was asked for."""
    import dataclasses

    from ..catalog.catalog import Catalog
    from ..machine import detect
    from ..plan import Setting
    from ..resolve.resolution import resolve_request
    from .request import check_names
    from .this_machine import this_machine

    @functools.cache
    def find() -> HostGpus:
        return detect.hardware_of(this_machine(), Catalog(list(folders)))

    def resolve(name: str, before: Sequence[Path]) -> Resolution:
        choices = {**request.choices, **({"profile": Setting(name, "dsv4 tune")} if name else {})}
        one = dataclasses.replace(request, choices=choices)
        return resolve_request(Catalog([*before, *folders]), one, find, check_names)

    return resolve
