"""`dsv4 status`: show the state of what `dsv4 up` started."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from . import arguments
from .output import answer

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "status",
        "Show what `dsv4 up` started: GPUs, phase, draft acceptance.",
        run,
        epilog="Exit status 1: not everything is ready.",
    )
    arguments.add_format(parser)


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Print one line for each container; return 1 where not everything is ready."""
    from datetime import UTC, datetime

    from ..containers import daemon, status

    containers = status.status(daemon.connect(os.environ))
    answer(
        options,
        lambda: [container.to_json() for container in containers],
        lambda: status.text(containers, datetime.now(UTC)),
    )
    return 0 if containers and all(container.ready for container in containers) else 1
