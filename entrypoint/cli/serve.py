"""`dsv4 serve`: resolve a plan, check the host, and supervise vLLM until it ends."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from .. import json_log
from . import arguments, own_secrets
from .output import print_message, show
from .this_machine import this_machine

if TYPE_CHECKING:
    from ..plan import Plan
    from ..resolve.select import Selection
    from ..supervisor.context import ServeContext
    from ..supervisor.lifecycle import Lifecycle
    from .parser import Commands
    from .start_line import StartLine


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "serve",
        "Resolve a plan, check the host, and run vLLM until it ends.",
        run,
        takes_vllm_flags=True,
        epilog=arguments.VLLM_FLAGS,
    )
    parser.add_argument("--dry-run", action="store_true", help="print the command that would start vLLM, and stop")
    arguments.add_collective(parser, "only between GPUs without NVLink")
    arguments.add_plan(parser)
    parser.set_defaults(online=True, here=True)


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Show the plan, and unless this is a dry run, run vLLM until it ends."""
    if options.dry_run:
        from .. import early_signals
        from .request import resolved

        early_signals.release()
        show(resolved(options, argv)[1])
        return 0
    import asyncio

    from . import log, start_line
    from .output import LogFormat

    log.to_stderr()
    own_secrets.hide(argv)
    with start_line.to_stderr(json=LogFormat.json) as line:
        return asyncio.run(_serve(options, argv, _context(line), line))


def _warn_if_open(plan: Plan) -> None:
    from .. import served_plan

    if address := served_plan.open_address(plan):
        print_message(
            f"WARNING: NO KEY: everyone who reaches {address} can use the API. Set API_KEY_FILE, or publish the port on"
            " loopback only."
        )


async def _serve(options: argparse.Namespace, argv: list[str], context: ServeContext, line: StartLine) -> int:
    """Resolve, check and supervise; the lifecycle reports why it ended, at whichever step."""
    from ..doctor.run import before_start
    from ..supervisor import leftovers, weights_fetch
    from ..supervisor.lifecycle import lifecycle
    from ..supervisor.supervisor import supervise
    from .doctor import doctor_options

    async with lifecycle(context) as life:
        json_log.PHASE.current = lambda: life.health.phase
        line.health = life.health
        await life.unless_stopped(leftovers.end, context.run_folder)
        selection, plan = await life.unless_stopped(_resolve, options, argv)
        show(plan)
        _warn_if_open(plan)
        if await life.admit(plan, await life.unless_stopped(this_machine)):
            this_machine.cache_clear()  # while it waited, other processes may have taken GPUs, or released them
        settings = doctor_options(options, serving=True)
        await life.check(lambda: before_start(selection, plan, this_machine(), settings))
        if await weights_fetch.fetch(plan, life):
            selection, plan = await _resolve_again(plan, life, options, argv)
            await life.check(lambda: before_start(selection, plan, this_machine(), settings))
        await life.unless_stopped(_take_kernels, plan)
        life.exit_reason = await supervise(plan, life)
    return life.exit_status


async def _resolve_again(
    before: Plan, life: Lifecycle, options: argparse.Namespace, argv: list[str]
) -> tuple[Selection, Plan]:
    """Resolve once more: the files that were fetched say what they are, and the GPUs may be others' by now."""
    this_machine.cache_clear()
    selection, plan = await life.unless_stopped(_resolve, options, argv)
    if plan != before:
        print_message("the files that were fetched change the plan:")
        show(plan)
        life.describe(plan)
    return selection, plan


def _resolve(options: argparse.Namespace, argv: list[str]) -> tuple[Selection, Plan]:
    """Return what was selected, and the plan with its kernel caches and a key of its own."""
    from .. import served_plan
    from ..supervisor import kernel_cache
    from .request import resolved

    selection, plan = resolved(options, argv)
    plan = served_plan.with_own_key(plan, os.environ)
    return selection, kernel_cache.placed(plan, os.environ, kernel_cache.installed_folder(plan, os.environ))


def _take_kernels(plan: Plan) -> None:
    """Import the kernel packs of the image, and those that DSV4_KERNELS names."""
    from ..kernel_packs import at_start
    from ..resolve import environment
    from ..supervisor import kernel_cache

    packs = at_start.sources(environment.variables().DSV4_KERNELS or "")
    if packs:
        at_start.take(packs, kernel_cache.root(os.environ), kernel_cache.installed_folder(plan, os.environ))


def _context(line: StartLine) -> ServeContext:
    from .. import listen
    from ..resolve import environment
    from ..supervisor import executable, run_folder, vllm_process
    from ..supervisor.context import ServeContext

    variables = environment.variables()
    health_host, health_port = listen.health_address(os.environ)
    return ServeContext(
        environ=os.environ,
        vllm=executable.vllm_program(os.environ),
        health_host=health_host,
        health_port=health_port,
        run_folder=run_folder.choose(variables.DSV4_RUN_DIR, os.environ, health_port),
        termination_log=variables.DSV4_TERMINATION_LOG,
        interactive=sys.stderr.isatty(),
        write=line.writer(vllm_process.write_all),
    )
