"""`dsv4 completion`: a script that completes commands, options and choices in a shell."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import parser as line

if TYPE_CHECKING:
    from .parser import Commands

SHELLS = ("bash", "zsh", "fish")
FILES, FOLDERS = ("FILE", "FILE.svg", "RESULT.json"), ("FOLDER", "DIR", "GITDIR")
"""Names of values that are paths."""


INSTALL = """\
bash, in ~/.bashrc:  eval "$(dsv4 completion bash)"
zsh:                 dsv4 completion zsh >"${fpath[1]}/_dsv4"
fish:                dsv4 completion fish >~/.config/fish/completions/dsv4.fish
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "completion",
        "Print a completion script for bash, zsh or fish.",
        run,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=INSTALL,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Print the script."""
    print(script(options.shell))
    return 0


def script(shell: str) -> str:
    """Return the script for a shell."""
    import shtab

    top, commands = line.build(line.names())
    for parser in commands.parsers.values():
        parser.attach_subcommands()
    for argument in top.arguments():
        if argument.metavar in FILES:
            argument.complete = shtab.FILE  # type: ignore[attr-defined]
        elif argument.metavar in FOLDERS:
            argument.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return shtab.complete(top, shell=shell)
