"""The parts of commands.md: every command with its options, from the parsers."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from dsv4_serve.entrypoint.cli import parser as line
from dsv4_serve.entrypoint.cli.parser import Parser
from tools.reference.markdown import code, prose, table

HELP = re.compile(r"(?P<text>.*?)(?: \((?:env: (?P<env>\w+))?(?:; )?(?:default: (?P<default>.*))?\))?")
"""A help line: what an option does, its environment variable, its default."""

Groups = Mapping[str, list[tuple[str, ...]]]
"""Rows of options by the title of their group; an empty title for those of one command."""


def tables() -> dict[str, str]:
    """Return a section for each command, and one for the options that several of them take."""
    commands = line.build(line.names())[1].parsers
    groups = {name: options(parser) for name, parser in commands.items()}
    counts = Counter(title for each in groups.values() for title in each)
    shared = {title: rows for each in groups.values() for title, rows in each.items() if title and counts[title] > 1}
    parts = []
    for group, names in line.GROUPS.items():
        parts.append(f"## {group}\n")
        parts += (section(commands[name], shared, "###") for name in names)
    common = [f"### Options: {title}\n\n{_options(rows)}" for title, rows in shared.items()]
    return {"commands": "\n" + "\n".join(parts) + "\n", "shared options": "\n" + "\n".join(common) + "\n"}


def section(parser: Parser, shared: Groups, level: str) -> str:
    """Return the section of one command, with those of its subcommands."""
    parser.attach_subcommands()
    groups = options(parser)
    parts = [f"{level} {parser.prog}\n", f"{prose(parser.description or '')}\n", f"```\n{synopsis(parser)}\n```\n"]
    if own := [row for title, rows in groups.items() if title not in shared for row in rows]:
        parts.append(_options(own))
    if links := [f"[{title}](#options-{title.replace(' ', '-')})" for title in groups if title in shared]:
        parts.append(f"Options that other commands take too: {', '.join(links)}.\n")
    if parser.formatter_class is argparse.RawDescriptionHelpFormatter:
        parts.append(f"```\n{(parser.epilog or '').strip()}\n```\n")
    elif parser.epilog:
        parts.append(f"{prose(parser.epilog)}\n")
    return "\n".join([*parts, *(section(each, shared, f"{level}#") for each in subcommands(parser).values())])


def options(parser: Parser) -> Groups:
    """Return the options of a command, and its arguments, by group; --help is no row."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for group in parser._action_groups:
        title = "" if group.title in ("positional arguments", "options") else group.title or ""
        for action in group._group_actions:
            if action.help is not None and not isinstance(action.choices, dict) and action.dest != "help":
                found.setdefault(title, []).append(row(parser, action))
    return found


def row(parser: Parser, action: argparse.Action) -> tuple[str, ...]:
    """Return how an option is written, what it does, its environment variable and its default."""
    text = parser._get_formatter()._expand_help(action)
    parts = HELP.fullmatch(text)
    assert parts
    needed = "(required)" if action.required and action.option_strings else ""
    env, default = parts["env"], parts["default"]
    return spelled(action), prose(parts["text"]), code(env) if env else "", needed or prose(default or "")


def spelled(action: argparse.Action) -> str:
    """Return every spelling of an option, the last with its value; of an argument, its name."""
    value = ""
    if action.nargs != 0:
        names = "|".join(map(str, action.choices)) if action.choices else action.metavar or action.dest.upper()
        several = action.nargs if isinstance(action.nargs, int) else 1
        value = f"{names} …" if action.nargs in ("+", "*") else " ".join([str(names)] * several)
    if not action.option_strings:
        return code(value)
    return code(*action.option_strings[:-1], f"{action.option_strings[-1]} {value}".rstrip())


def synopsis(parser: Parser) -> str:
    """Return how a command is written in short."""
    takes_options = any(action.option_strings for action in parser._actions if action.dest != "help")
    parts = [parser.prog, *(["[OPTION …]"] if takes_options else [])]
    for action in parser._get_positional_actions():
        name = spelled(action).strip("`")
        if isinstance(action.choices, dict):
            parts.append("COMMAND …" if action.required else "[COMMAND …]")
        else:
            parts.append(f"[{name}]" if action.nargs in ("?", "*") else name)
    return " ".join([*parts, *(["[VLLM'S FLAG …]"] if parser.takes_vllm_flags else [])])


def subcommands(parser: Parser) -> Mapping[str, Parser]:
    """Return the subcommands of a command."""
    return next((action.choices for action in parser._actions if isinstance(action.choices, dict)), {})


def every() -> Iterator[Parser]:
    """Yield every command and every subcommand."""
    for parser in line.build(line.names())[1].parsers.values():
        parser.attach_subcommands()
        yield from (parser, *subcommands(parser).values())


def _options(rows: list[tuple[str, ...]]) -> str:
    return table(("option", "what it does", "environment", "default"), rows)
