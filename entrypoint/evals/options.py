"""The options of `dsv4 eval` and `dsv4 report`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from .. import results
from ..argument_types import count
from ..client import endpoint
from .task import THINKING, find
from .task_request import EvalRequest, default_python

EVAL = "a quality check by lm-evaluation-harness against a running replica, beside the published figure"
REPORT = "every result of a machine on one HTML page that needs no network"


def add_eval(parser: argparse.ArgumentParser) -> None:
    """Add what `eval` takes."""
    parser.epilog = "Exit status 1: worse than published. Without the extra `eval` it says how to install it."
    parser.add_argument("task", metavar="TASK", help="gsm8k, aime, aime25, humaneval, ifeval, mmlu-pro, or your own")
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N questions")
    parser.add_argument("--thinking", choices=THINKING, help="the mode; the task's if absent")
    parser.add_argument("--max-tokens", type=count, metavar="N", help="tokens of an answer; near the context if absent")
    parser.add_argument("--temperature", type=temperature, default=0.0, metavar="T", help="0, as the published figures")
    parser.add_argument("--concurrency", type=count, default=4, metavar="N", help="requests at a time (4)")
    parser.add_argument("--model", metavar="M", help="which model's figures; read from the replica if absent")
    parser.add_argument("--tasks", type=Path, metavar="FILE", help="tasks of your own, in the form of our tasks.toml")
    parser.add_argument("--python", metavar="PROGRAM", help="a Python that has lm-eval (DSV4_EVAL_PYTHON; this one)")
    parser.add_argument("--resume", action="store_true", help="go on with the newest run of this task, mode and model")
    parser.add_argument("--dry-run", action="store_true", help="say what it takes and stop")
    parser.add_argument(
        "--confirm-run-unsafe-code", action="store_true", help="run the code of answers on this machine (humaneval)"
    )
    parser.add_argument("--out", type=Path, default=Path(results.FOLDER), metavar="FOLDER", help="for the result")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    endpoint.add_options(parser)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add what `report` takes."""
    parser.add_argument(
        "--from", dest="folder", type=Path, default=Path(results.FOLDER), metavar="FOLDER", help="where results are"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page (report.html)")


def temperature(text: str) -> float:
    """Return a temperature, as a type of argparse's; raise ArgumentTypeError for none."""
    if not 0 <= (found := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no temperature; give 0 or more")
    return found


def request(options: argparse.Namespace, environ: Mapping[str, str]) -> EvalRequest:
    """Return the evaluation that the options of `eval` order; raise UserError for an unknown task."""
    task = find(options.task, options.tasks)
    return EvalRequest(
        task=task,
        thinking=options.thinking or task.thinking,
        limit=options.limit,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        concurrency=options.concurrency,
        out=options.out,
        resume=options.resume,
        dry_run=options.dry_run,
        run_code=options.confirm_run_unsafe_code,
        python=options.python or default_python(environ),
    )
