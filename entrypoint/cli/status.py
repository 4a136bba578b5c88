"""`dsv4 status`: how what `dsv4 up` started is."""

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


def run(options: argparse.Namespace, _words: list[str]) -> int:
    """Print one line a container; 1 where not everything is ready."""
    from datetime import UTC, datetime

    from ..containers import daemon, status

    found = status.status(daemon.connect(os.environ))
    answer(options, lambda: [one.to_json() for one in found], lambda: status.text(found, datetime.now(UTC)))
    return 0 if found and all(one.ready for one in found) else 1
