"""`dsv4 patch`: apply and verify the patches to vLLM."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...patcher import cli as patcher

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command and its subcommands."""
    parser = commands.add(
        "patch",
        "Apply and verify the patches to the installed vLLM.",
        run,
        details="A series applies only to the vLLM version that it was made for.",
        epilog="Exit status 1: it failed, and nothing was written.",
    )
    patcher.add_commands(parser)


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Run the subcommand."""
    return patcher.run(options)
