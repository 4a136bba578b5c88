"""`dsv4 warm`: compile the kernels of a plan before its first start."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from . import arguments
from .output import answer

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "warm",
        "Start a plan once to compile its kernels and keep them.",
        run,
        details="vLLM is stopped when it is ready; the kernels stay in the cache (DSV4_CACHE).",
        takes_vllm_flags=True,
        epilog=arguments.VLLM_FLAGS,
    )
    parser.add_argument("--again", action="store_true", help="start a second time, to measure what a warm start saves")
    arguments.add_format(parser)
    arguments.add_without_weights(parser)
    arguments.add_plan(parser)


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Start, stop, and print what was compiled."""
    from ..bench import options as benches
    from ..bench import warm
    from . import log, own_secrets
    from .request import resolved

    log.to_stderr()
    own_secrets.hide(argv)
    benches.check_warm(options)
    serve = benches.serve_options(options, argv)
    result = warm.warm(resolved(options, argv), serve, os.environ, dummy=options.without_weights, again=options.again)
    return answer(options, lambda: result, lambda: warm.text(result))
