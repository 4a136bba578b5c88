"""`dsv4 down`: end what `dsv4 up` started."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from .output import print_message

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    commands.add("down", "Drain, stop and remove what `dsv4 up` started.", run, details="The caches stay.")


def run(_options: argparse.Namespace, _argv: list[str]) -> int:
    """Drain, stop and remove the containers."""
    from ..containers import daemon, down

    down.down(daemon.connect(os.environ), print_message)
    return 0
