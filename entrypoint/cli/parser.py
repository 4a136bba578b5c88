"""
The commands in groups, one module each, and the parser that they register with.

argparse rather than click or typer: it takes 1 ms of CPU to import, they take 14 and 28 (CPython 3.11, click 8.5.1,
typer 0.29.2, 2026-11-28), and it passes through the flags that it does not know, which are vLLM's.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from ..errors import UsageError, closest

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Serve": ("serve", "explain", "profiles", "weights"),
    "Check": ("doctor", "qualify", "fit", "smoke", "probe"),
    "Measure": ("bench", "tune", "eval", "report"),
    "Operate": ("up", "down", "status", "top", "logs", "canary"),
    "Build": ("patch", "warm", "kernels", "bundle", "manifests"),
    "Help": ("help", "version", "completion"),
}
"""Modules of this folder by the group they are listed in; each has `register(commands)`."""

Run = Callable[[argparse.Namespace, list[str]], int]


class Parser(argparse.ArgumentParser):
    """The parser of one command; a mistake raises UsageError with the closest option or choice."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})
        self.takes_vllm_flags = False
        self._subcommands: dict[str, Callable[[Commands], None]] = {}
        self.set_defaults(command=self)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}; see `{self.prog} --help`.")

    def options(self) -> list[str]:
        """Return its long options."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def arguments(self) -> Iterator[argparse.Action]:
        """Yield its arguments, and those of its subcommands."""
        for action in self._actions:
            yield action
            if isinstance(action.choices, dict):
                for parser in action.choices.values():
                    yield from parser.arguments()

    def refuse(self, argument: str) -> NoReturn:
        """Raise UsageError for an argument that this command does not take."""
        near = closest(argument.partition("=")[0].lstrip("-"), [option[2:] for option in self.options()])
        hint = f" (did you mean --{near}?)" if near and argument.startswith("-") else ""
        raise UsageError(f"`{self.prog}` does not take {argument!r}{hint}; see `{self.prog} --help`.")

    def may_begin_with(self, name: str, register: Callable[[Commands], None]) -> None:
        """
        Let the first argument of this command name a subcommand.

        argparse would take the value of a vLLM flag for the name of a subcommand, so subcommands are attached only if
        the first argument is not an option.
        """
        self._subcommands[name] = register

    def attach_subcommands(self) -> None:
        """Add the subcommands of `may_begin_with` to argparse."""
        if self._subcommands:
            commands = Commands(self)
            for register in self._subcommands.values():
                register(commands)
            self._subcommands = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments of one command."""
        if args and not args[0].startswith("-"):
            self.attach_subcommands()
        return super().parse_known_args(args, namespace)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help; unlike argparse's own method, raise OSError where it cannot be written."""
        print(message, end="", file=file)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            meant = closest(str(value), choices)
            hint = f"; did you mean {meant}?" if meant else ""
            raise argparse.ArgumentError(action, f"invalid choice: {value!r} (choose from {', '.join(choices)}{hint})")


class Commands:
    """The registry of commands; each command's module adds its own."""

    def __init__(self, parser: Parser) -> None:
        self._add = parser.add_subparsers(title="commands", metavar="COMMAND").add_parser
        self.parsers: dict[str, Parser] = {}
        self.sentences: dict[str, str] = {}

    def add(
        self, name: str, sentence: str, run: Run, *, details: str = "", takes_vllm_flags: bool = False, **more: Any
    ) -> Parser:
        """Add a command that `run` runs, and return its parser; `sentence` describes it in the list of commands."""
        about = f"{sentence} {details}".rstrip()
        parser = self._add(name, help=sentence, description=about, **more)
        parser.set_defaults(run=run)
        parser.takes_vllm_flags = takes_vllm_flags
        self.parsers[name], self.sentences[name] = parser, sentence
        return parser


def names() -> list[str]:
    """Return the names of all commands."""
    return [name for group in GROUPS.values() for name in group]


def build(commands: Iterable[str]) -> tuple[Parser, Commands]:
    """Return the parser of `dsv4` with these commands; the modules of the others are not imported."""
    top = Parser(
        prog="dsv4", description="Serve DeepSeek-V4 with its draft head, by the name of a profile.", usage=None
    )
    top.add_argument("-V", "--version", action="store_true", help="print the version and stop")
    registry = Commands(top)
    for name in commands:
        importlib.import_module(f".{name}", __package__).register(registry)
    return top, registry


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of a command line that begins with a command, and the flags that are vLLM's."""
    cut = argv.index("--") if "--" in argv else len(argv)
    options, flags = build(argv[:1])[0].parse_known_args(argv[:cut])
    flags += argv[cut + 1 :]
    if flags:
        if not options.command.takes_vllm_flags:
            options.command.refuse(flags[0])
        from . import misspelled

        misspelled.refuse(options.command, flags)
    return options, flags
