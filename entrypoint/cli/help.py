"""`dsv4 help`: print the list of commands, or the help of one."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import TYPE_CHECKING

from ..errors import UsageError, nearest
from . import parser as line

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add("help", "Print the list of commands, or the help of one.", run)
    parser.add_argument(
        "topic",
        nargs="*",
        metavar="COMMAND",
        help="a command, and its subcommand if it has one (default: list all commands)",
    )


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Print the requested help."""
    if not options.topic:
        print(overview())
        return 0
    if options.topic[0] not in line.names():
        hint = nearest(options.topic[0], line.names())
        raise UsageError(f"{options.topic[0]!r} is not a command{hint}; see `dsv4 help`.")
    line.parse([*options.topic, "--help"])
    return 0


def overview() -> str:
    """Return the list of all commands, in groups."""
    top, commands = line.build(line.names())
    width = max(map(len, line.names())) + 4
    lines = ["usage: dsv4 COMMAND [OPTION ...]", "", top.description or ""]
    for group, names in line.GROUPS.items():
        lines += ["", f"{group}:", *(_entry(name, commands.sentences[name], width) for name in names)]
    closing = (
        "`dsv4 help COMMAND` lists the options of a command. A leading option means `serve`: `dsv4 --profile 128k`."
        " In the image, a first word that is not a command runs as a program."
    )
    return "\n".join([*lines, "", textwrap.fill(closing, _columns())])


def _entry(name: str, sentence: str, width: int) -> str:
    return textwrap.fill(sentence, _columns(), initial_indent=f"  {name}".ljust(width), subsequent_indent=" " * width)


def _columns() -> int:
    return max(shutil.get_terminal_size().columns - 2, 40)
