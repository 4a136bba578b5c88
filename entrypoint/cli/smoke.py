"""`dsv4 smoke`: send a running replica what users send, and check the answers."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .arguments import above_zero, count, seconds
from .output import answer, print_message

if TYPE_CHECKING:
    from .parser import Commands

MOST = 1024
"""Concurrent requests."""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "smoke",
        "Send a running replica what users send, and give a verdict.",
        run,
        epilog="Exit status 1: a check failed; 69: no replica answers.",
    )
    parser.add_argument(
        "--context-share",
        type=above_zero("share of the context", 0.95),
        default=0.1,
        metavar="S",
        help="fill this share of the context with the long prompt, up to 0.95 (default: %(default)s)",
    )
    parser.add_argument(
        "--streams",
        type=streams,
        metavar="N",
        help="send N requests at once (default: gate.concurrency of the plan, at most its max-num-seqs)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=120.0,
        metavar="SECONDS",
        help="end all checks together after SECONDS (default: 120)",
    )
    parser.add_argument("--skip", metavar="NAME", action="append", default=[], help="skip one check; repeatable")
    arguments.add_format(parser)
    parser.add_argument("--junit", metavar="FILE", help="also write the result, or the error, to FILE as JUnit XML")
    arguments.add_out(parser)
    arguments.add_replica(parser)


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Run the checks and keep the result; 1 where one failed."""
    from .. import junit
    from ..client import endpoint
    from ..smoke import command
    from . import log

    log.to_stderr()
    file = Path(options.junit) if options.junit else None
    settings = command.SmokeSettings(options.context_share, options.timeout, options.streams, tuple(options.skip))
    with junit.error_kept(file, "dsv4 smoke"):
        where = endpoint.resolve(options.url, options.health, options.api_key_file, os.environ)
        report = command.smoke(where, settings)
    answer(options, report.to_json, report.text)
    path = command.keep(report, options.out, file)
    print_message(f"result {path}")
    return 0 if report.ok else 1


def streams(text: str) -> int:
    """Return how many requests run at once; raise ArgumentTypeError for too many."""
    if (number := count(text)) > MOST:
        raise argparse.ArgumentTypeError(f"{text} concurrent requests are too many; use at most {MOST}")
    return number
