"""Print answers on stdout, and progress and errors on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..plan import shown
from ..terminal import printable

if TYPE_CHECKING:
    import argparse

    from ..plan import Plan, Setting, Value


class LogFormat:
    """How this process prints messages: as text, or for `serve` as JSON."""

    json = False


@dataclass
class Above:
    """How a message gets above a line that is written over; nothing has to be done where there is none."""

    line: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext


ABOVE = Above()


def print_message(text: str, level: str = "INFO", **fields: Any) -> None:
    """Print progress, or an error, on stderr; that it cannot be written changes nothing else."""
    if not LogFormat.json:
        with ABOVE.line(), contextlib.suppress(OSError):
            print(f"dsv4: {printable(text)}", file=sys.stderr, flush=True)
        return
    from .. import json_log

    bare = text.removeprefix("WARNING: ")
    level = level if bare == text else "WARNING"
    with contextlib.suppress(OSError):
        print(json_log.line(json_log.OURS, level, bare, **fields), file=sys.stderr, flush=True)


def print_traceback(error: Exception) -> None:
    """Print an error that no command expects, and what to do with it."""
    import traceback

    with contextlib.suppress(OSError):
        traceback.print_exception(error)
    print_message(f"internal error ({type(error).__name__}); report it with `dsv4 bundle --support`.", "ERROR")


def answer(options: argparse.Namespace, data: Callable[[], Any], text: Callable[[], str]) -> int:
    """Print an answer in the format of --format; return 0."""
    print(json.dumps(data(), indent=2) if options.format == "json" else printable(text()))
    return 0


def show(plan: Plan) -> None:
    """Print the selected names, and the command that starts vLLM."""
    if LogFormat.json:
        chosen = {name: value_text(name, setting.value) for name, setting in plan.choices.items()}
        print_message("the plan", choices=chosen, command=plan.command())
        return
    with ABOVE.line():
        for name, setting in plan.choices.items():
            print(printable(f"# {setting_line(name, setting)}"))
        print(printable(plan.command()), flush=True)


def setting_line(name: str, setting: Setting) -> str:
    """Return `name = value (origin)`."""
    return f"{name} = {value_text(name, setting.value)} ({setting.origin})"


def value_text(name: str, value: Value) -> str:
    """Return a value for people; a secret is masked."""
    value = shown(name, value)
    return value if isinstance(value, str) else json.dumps(value)
