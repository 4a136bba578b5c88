"""`dsv4 eval`: run a quality benchmark against a running replica."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UsageError
from . import arguments
from .arguments import count
from .output import answer, print_message

if TYPE_CHECKING:
    from ..client.endpoint import Endpoint
    from ..evals.served import ServedReplica
    from .parser import Commands

Request = TypeVar("Request")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "eval",
        "Run a quality benchmark and compare it with what is published.",
        run,
        details="lm-evaluation-harness sends the questions to a running replica; `tools` sends scenarios of its own.",
        epilog="Exit status 1: worse than published, or a protocol fault of tools. All tasks but tools need the extra"
        " `eval`, and print how to install it.",
    )
    parser.add_argument(
        "task",
        metavar="TASK",
        help="gsm8k, aime, aime25, humaneval, ifeval, mmlu-pro, tools (needs no lm-eval), or a task of --tasks",
    )
    questions = parser.add_argument_group("questions and answers")
    questions.add_argument("--limit", type=count, metavar="N", help="ask the first N questions only (default: all)")
    questions.add_argument(
        "--thinking", choices=("chat", "high", "max"), help="choose the thinking mode (default: that of the task)"
    )
    questions.add_argument(
        "--max-tokens", type=count, metavar="N", help="limit each answer to N tokens (default: nearly the context)"
    )
    questions.add_argument(
        "--temperature",
        type=temperature,
        default=0.0,
        metavar="T",
        help="sample with this temperature; published figures use 0 (default: 0)",
    )
    questions.add_argument(
        "--concurrency", type=count, default=4, metavar="N", help="send N requests at a time (default: %(default)s)"
    )
    questions.add_argument(
        "--model", metavar="M", help="compare with the figures of this model (default: the one that the replica serves)"
    )
    questions.add_argument(
        "--tasks", type=Path, metavar="FILE", help="read more tasks from FILE, written like entrypoint/evals/tasks.toml"
    )
    questions.add_argument(
        "--rounds",
        type=count,
        default=2,
        metavar="N",
        help="of tools: run each scenario N times, every second one streamed (default: %(default)s)",
    )
    parser.add_argument(
        "--junit",
        type=Path,
        metavar="FILE",
        help="of tools: also write the result, or the error, to FILE as JUnit XML",
    )
    parser.add_argument(
        "--python",
        metavar="PROGRAM",
        help="run lm-eval with this Python (env: DSV4_EVAL_PYTHON; default: the one that runs dsv4)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the newest run of the same task, mode and model"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the number of requests and the longest duration, and stop"
    )
    parser.add_argument(
        "--confirm-run-unsafe-code",
        action="store_true",
        help="run the code in answers on this machine, which humaneval needs",
    )
    arguments.add_out(parser)
    arguments.add_format(parser)
    arguments.add_replica(parser)


def run(options: argparse.Namespace, _argv: list[str]) -> int:
    """Run the task and keep the result; 1 where it is worse than published, or where tool calls are at fault."""
    from ..evals import evaluate, text
    from ..evals import options as evals
    from ..evals.task import TOOLS
    from . import log

    log.to_stderr()
    if options.task == TOOLS:
        return _run_tools(options)
    if options.junit:
        raise UsageError("--junit is for the task tools; the other tasks write their result below --out.")
    request = evals.request(options, os.environ)
    result = _run_on_replica(options, evaluate.evaluate, request)
    if not result:
        return 0
    answer(options, lambda: result, lambda: text.text(result))
    return 1 if evaluate.verdict(result) == "worse" else 0


def _run_tools(options: argparse.Namespace) -> int:
    """Run the scenarios of tool calls; 1 where the protocol is at fault."""
    from .. import junit
    from ..evals import options as evals
    from ..evals import tool_eval, tool_scenarios, tool_text

    with junit.error_kept(options.junit, "dsv4 eval tools"):
        result = _run_on_replica(options, tool_eval.evaluate, evals.tool_request(options))
    if not result:
        return 0
    answer(options, lambda: result, lambda: tool_text.text(result))
    if options.junit:
        scenarios = {one.name: one.kind for one in tool_scenarios.read()[1][: options.limit]}
        junit.write(options.junit, tool_text.junit(result, scenarios))
    return 1 if tool_text.protocol_faults(result) else 0


def _run_on_replica(
    options: argparse.Namespace,
    evaluate: Callable[[Endpoint, ServedReplica, Request], dict[str, Any]],
    request: Request,
) -> dict[str, Any]:
    """Return the result of a request to the replica that the options name."""
    from ..catalog.catalog import Catalog
    from ..client import endpoint
    from ..evals import served
    from ..resolve import environment

    where = endpoint.resolve(options.url, options.health, options.api_key_file, os.environ)
    model = served.identify(where, Catalog(environment.folders()), options.model)
    try:
        return evaluate(where, model, request)
    except KeyboardInterrupt:
        print_message("stopped; the answers so far are kept, continue with --resume")
        raise


def temperature(text: str) -> float:
    """Return a temperature; raise ArgumentTypeError for anything else."""
    if not 0 <= (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a valid temperature; use 0 or more")
    return number
