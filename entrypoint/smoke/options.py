"""The options of `dsv4 smoke`."""

from __future__ import annotations

import argparse

from ..argument_types import count, seconds
from ..client import endpoint

ABOUT = (
    "ask a running replica what its users will, with a verdict; exit status 1 when a check fails, 69 without a replica"
)
SECONDS = 120.0
SHARE = 0.1
MOST = 1024
"""Requests at once."""


def add(command: argparse.ArgumentParser) -> None:
    """Add the options of `dsv4 smoke`."""
    endpoint.add_options(command)
    command.add_argument(
        "--context-share",
        type=share,
        default=SHARE,
        metavar="S",
        help=f"how much of the context the long prompt fills, 0 to 0.95 ({SHARE})",
    )
    command.add_argument(
        "--streams", type=streams, metavar="N", help="requests at once (gate.concurrency and max-num-seqs of the plan)"
    )
    command.add_argument(
        "--timeout", type=seconds, default=SECONDS, metavar="SECONDS", help=f"for all checks together ({SECONDS:.0f})"
    )
    command.add_argument("--skip", metavar="NAME", action="append", default=[], help="leave one check out")
    command.add_argument("--format", choices=("text", "json"), default="text")
    command.add_argument("--junit", metavar="FILE", help="write JUnit XML there too")
    command.add_argument("--out", metavar="FOLDER", default="qualification", help="for the receipt (qualification)")


def share(text: str) -> float:
    """Return a share of the context, as a type of argparse's; raise ArgumentTypeError for none."""
    if not 0 < (found := float(text)) <= 0.95:
        raise argparse.ArgumentTypeError(f"{text} is no share of the context; give more than 0, at most 0.95")
    return found


def streams(text: str) -> int:
    """Return how many requests run at once, as a type of argparse's; raise ArgumentTypeError for too many."""
    if (found := count(text)) > MOST:
        raise argparse.ArgumentTypeError(f"{text} requests at once are too many; {MOST} at most")
    return found
