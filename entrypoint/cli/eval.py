"""`dsv4 eval`: a quality benchmark of a running replica."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .arguments import count
from .output import answer, say

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "eval",
        "Run a quality benchmark and compare it with what is published.",
        run,
        details="lm-evaluation-harness asks a running replica.",
        epilog="Exit status 1: worse than published. Without the extra `eval` it says how to install it.",
    )
    parser.add_argument("task", metavar="TASK", help="gsm8k, aime, aime25, humaneval, ifeval, mmlu-pro, or your own")
    asked = parser.add_argument_group("questions and answers")
    asked.add_argument("--limit", type=count, metavar="N", help="only the first N questions")
    asked.add_argument("--thinking", choices=("chat", "high", "max"), help="the mode; the task's if absent")
    asked.add_argument("--max-tokens", type=count, metavar="N", help="tokens of an answer; near the context if absent")
    asked.add_argument("--temperature", type=temperature, default=0.0, metavar="T", help="0, as the published figures")
    asked.add_argument("--concurrency", type=count, default=4, metavar="N", help="requests at a time (4)")
    asked.add_argument("--model", metavar="M", help="which model's figures; read from the replica if absent")
    asked.add_argument("--tasks", type=Path, metavar="FILE", help="tasks of your own, in the form of our tasks.toml")
    parser.add_argument("--python", metavar="PROGRAM", help="a Python that has lm-eval (DSV4_EVAL_PYTHON; this one)")
    parser.add_argument("--resume", action="store_true", help="go on with the newest run of this task, mode and model")
    parser.add_argument("--dry-run", action="store_true", help="say what it takes and stop")
    parser.add_argument(
        "--confirm-run-unsafe-code", action="store_true", help="run the code of answers on this machine (humaneval)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("qualification"), metavar="FOLDER", help="for the result (%(default)s)"
    )
    arguments.add_format(parser)
    arguments.add_replica(parser)


def run(options: argparse.Namespace, _words: list[str]) -> int:
    """Run the task and keep the result; 1 where it is worse than published."""
    from ..catalog.catalog import Catalog
    from ..client import endpoint
    from ..evals import evaluate, served, text
    from ..evals import options as evals
    from ..resolve import environment
    from . import log

    log.to_stderr()
    request = evals.request(options, os.environ)
    where = endpoint.resolve(options.url, options.health, options.api_key_file, os.environ)
    found = served.look(where, Catalog(environment.folders()), options.model)
    try:
        result = evaluate.evaluate(where, found, request)
    except KeyboardInterrupt:
        say("stopped; what was answered is kept, and --resume goes on")
        raise
    if not result:
        return 0
    answer(options, lambda: result, lambda: text.text(result))
    return 1 if evaluate.verdict(result) == "worse" else 0


def temperature(text: str) -> float:
    """Return a temperature; raise ArgumentTypeError for none."""
    if not 0 <= (found := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no temperature; give 0 or more")
    return found
