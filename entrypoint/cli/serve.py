"""`dsv4 serve`: start what the plan says, and own it until it ends."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .output import say, show

if TYPE_CHECKING:
    from ..doctor.report import Report
    from ..plan import Plan
    from ..resolve.select import Selection
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "serve",
        "Resolve a plan, check the host, and run vLLM until it ends.",
        run,
        takes_vllm_flags=True,
        epilog=arguments.VLLM_FLAGS,
    )
    parser.add_argument("--dry-run", action="store_true", help="print the command and stop")
    arguments.add_collective(parser)
    arguments.add_plan(parser)


def run(options: argparse.Namespace, words: list[str]) -> int:
    """Show the plan, and unless this is a dry run own vLLM until it ends."""
    from .request import resolved

    if options.dry_run:
        show(resolved(options, words)[1])
        return 0
    from ..resolve import environment
    from ..supervisor import crash_loop, kernel_cache, passthrough, provenance, supervisor
    from .doctor import around

    variables = environment.variables()
    selection: list[Selection] = []

    def prepare() -> Plan:
        selected, plan = resolved(options, words)
        selection[:] = [selected]
        return kernel_cache.placed(plan, os.environ, kernels(plan))

    def kernels(plan: Plan) -> Path:
        return kernel_cache.folder_of(plan, kernel_cache.build(provenance.versions(), provenance.patches()), os.environ)

    def check(plan: Plan) -> Report:
        from ..doctor import run

        return run.before_start(selection[0], plan, around(options, serving=True))

    return supervisor.run(
        supervisor.Surroundings(
            environ={**os.environ, "DSV4_VLLM": passthrough.vllm_program(os.environ)},
            health_host=variables.DSV4_HEALTH_HOST,
            health_port=variables.DSV4_HEALTH_PORT,
            run_folder=variables.DSV4_RUN_DIR or crash_loop.default_folder(variables.DSV4_HEALTH_PORT),
            termination_log=variables.DSV4_TERMINATION_LOG,
            prepare=prepare,
            check=check,
            describe=provenance.replica,
            show=show,
            say=say,
            cache=lambda plan: kernel_cache.find(plan, kernels(plan)),
            interactive=sys.stderr.isatty(),
        )
    )
