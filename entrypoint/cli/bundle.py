"""`dsv4 bundle`: collect what a host without a network needs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .output import print_message

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "bundle",
        "Collect what a host without a network needs in one folder.",
        run,
        details="Images, checksums, the compose file and profiles; copy the weights separately.",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a folder that does not exist yet")
    arguments.add_images(parser)


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Write the folder."""
    from ..containers import bundle, daemon
    from ..containers import options as replicas

    images = replicas.images(options, os.environ)
    bundle.bundle(daemon.connect(os.environ), *images, Path(options.out), print_message)
    return 0
