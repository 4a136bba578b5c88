"""`dsv4 explain`: show every setting of a plan and where it comes from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..plan import DEFAULT, Plan, Setting
from ..text_table import table
from . import arguments
from .output import answer, value_text

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "explain",
        "Show every setting of a plan and where it comes from.",
        run,
        details="Nothing is started, and no network is used without --online.",
        takes_vllm_flags=True,
        epilog=arguments.VLLM_FLAGS,
    )
    arguments.add_format(parser)
    parser.add_argument(
        "--online",
        action="store_true",
        help="ask the Hub what a repository holds that is not in the local cache, for 10 s at most",
    )
    arguments.add_plan(parser)


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Print the plan."""
    from .request import resolved

    _, plan = resolved(options, argv)
    return answer(options, plan.to_json, lambda: text(plan))


def text(resolved: Plan) -> str:
    """Return every setting with its value and origin, then what it replaced; the command comes last."""
    rows: list[tuple[str, str, str]] = []
    for title, settings in _parts(resolved):
        if title and settings:
            rows += [("", "", ""), (title, "", "")]
        for name, setting in settings.items() if not title else sorted(settings.items()):
            rows.append((name, value_text(name, setting.value), setting.origin))
            rows += [("", value_text(name, s.value), f"overridden: {s.origin}") for s in setting.overridden]
    return f"{table(rows)}\n\n{resolved.command()}"


def _parts(resolved: Plan) -> list[tuple[str, Mapping[str, Setting]]]:
    """Return the parts of a plan by title; of supervision, only what differs from the defaults."""
    changed = {name: s for name, s in resolved.supervision.items() if s.origin != DEFAULT}
    parts = {"": resolved.choices, "flags": resolved.flags, "environment": resolved.env, "supervision": changed}
    return list(parts.items())
