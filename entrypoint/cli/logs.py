"""`dsv4 logs`: print the logs of the containers of `dsv4 up`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..terminal import printable
from .arguments import count

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add("logs", "Print the logs of the containers of `dsv4 up`.", run)
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a replica's number, `balancer`, or a container's name (default: all)"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing until the containers end")
    parser.add_argument(
        "--tail", type=count, metavar="N", help="begin with the last N lines of each container (default: all)"
    )


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Print the lines."""
    from ..containers import daemon, logs

    for text in logs.lines(daemon.connect(os.environ), options.name, follow=options.follow, tail=options.tail):
        print(printable(text), flush=True)
    return 0
