"""`dsv4 bench`: speed of a replica, and the comparison of two results."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .output import answer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..client.endpoint import Endpoint
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "bench",
        "Measure throughput and latencies of a running replica.",
        run,
        details="`vllm bench serve` sends the requests; a file keeps the result. `dsv4 bench compare` compares two.",
        takes_vllm_flags=True,
        epilog=f"Options under `plan` apply with --without-weights only. {arguments.VLLM_FLAGS}",
    )
    parser.may_begin_with("compare", register_compare)
    load = parser.add_argument_group("load")
    load.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 4, 16],
        metavar="N",
        help="measure with N concurrent requests, one run for each N (default: 1 4 16)",
    )
    load.add_argument(
        "--input", type=int, default=256, metavar="N", help="send prompts of N tokens (default: %(default)s)"
    )
    load.add_argument(
        "--output", type=int, default=256, metavar="N", help="request answers of N tokens (default: %(default)s)"
    )
    load.add_argument(
        "--context",
        type=_context,
        nargs="+",
        default=[],
        metavar="N",
        help="let prompt and answer have N tokens, or `full` for the served context; replaces --input",
    )
    load.add_argument(
        "--history",
        type=int,
        default=0,
        metavar="N",
        help="begin each prompt with N tokens that the conversation sent before; it has --requests-per-batch turns",
    )
    load.add_argument(
        "--requests-per-batch",
        type=int,
        default=4,
        metavar="R",
        help="send R requests for each concurrent one (default: %(default)s)",
    )
    load.add_argument(
        "--rounds", type=int, metavar="R", help="measure everything R times (default: 1, or 2 with --engine-url)"
    )
    load.add_argument(
        "--seed", type=int, default=0, metavar="S", help="make the random prompts from S (default: %(default)s)"
    )
    load.add_argument(
        "--goodput",
        nargs="+",
        default=[],
        metavar="NAME:MS",
        help="count the requests within these limits in ms, such as ttft:2000 tpot:50; e2el is the whole request",
    )
    load.add_argument(
        "--tokenizer", metavar="T", help="count tokens with this folder or repository (default: that of the replica)"
    )
    arguments.add_format(parser)
    arguments.add_out(parser)
    parser.add_argument("--plot", metavar="FILE.svg", help="draw throughput and latency by batch size into this file")
    arguments.add_share(parser)
    arguments.add_replica(parser)
    engine = parser.add_argument_group("another engine")
    engine.add_argument(
        "--engine-url", metavar="URL", help="measure the OpenAI server here too, in turn and with the same prompts"
    )
    engine.add_argument("--engine-key-file", metavar="FILE", help="read the other engine's bearer key from FILE")
    engine.add_argument("--engine-model", metavar="NAME", help="name of the model there (default: the first it lists)")
    engine.add_argument(
        "--engine-hardware",
        metavar="TEXT",
        help="hardware there, such as '2 x H200', for its result (default: not stated)",
    )
    arguments.add_without_weights(parser)
    arguments.add_plan(parser)


def register_compare(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add("compare", "Compare two results: ratios, and what differs between the replicas.", run_compare)
    parser.add_argument("results", nargs=2, metavar="RESULT.json", help="the two result files")
    arguments.add_format(parser)


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Measure, keep the result, and print it."""
    from contextlib import nullcontext

    from ..bench import command, compare, measure
    from ..bench import options as benches
    from ..client import endpoint
    from . import log, own_secrets
    from .request import resolved

    log.to_stderr()
    own_secrets.hide(argv)
    request = benches.bench_request(options)
    benches.check_bench(options, argv)
    replica: AbstractContextManager[Endpoint]
    if options.without_weights:
        selection, plan = resolved(options, argv)
        replica = command.without_weights(selection, plan, benches.serve_options(options, argv), os.environ)
    else:
        replica = nullcontext(endpoint.resolve(options.url, options.health, options.api_key_file, os.environ))
    found = command.bench(replica, request, os.environ)
    if len(found) == 1:
        return answer(options, lambda: found[0], lambda: measure.text(found[0]))
    comparison = compare.compared(*found)
    engines = [result["subject"] for result in found]
    return answer(
        options,
        lambda: {"engines": engines, "results": [result["file"] for result in found], **comparison},
        lambda: compare.text_of_engines(found, comparison),
    )


def _context(text: str) -> str | int:
    from ..bench.options import FULL

    if text == FULL:
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of tokens nor `{FULL}`") from None


def run_compare(options: argparse.Namespace, _argv: list[str]) -> int:
    """Print the comparison."""
    from ..bench import compare

    comparison = compare.compare(*map(Path, options.results))
    return answer(options, lambda: comparison, lambda: compare.text(comparison))
