"""`dsv4 fit`: show what fits the GPUs' memory, and which flag to change."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import ConfigError
from . import arguments
from .output import answer

if TYPE_CHECKING:
    from .parser import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "fit",
        "Show what fits the GPUs' memory and which flag to change.",
        run,
        takes_vllm_flags=True,
        epilog=f"Exit status 1: it does not fit. {arguments.VLLM_FLAGS}",
    )
    arguments.add_format(parser)
    arguments.add_plan(parser)


def run(options: argparse.Namespace, argv: list[str]) -> int:
    """Print the answer; 1 if it does not fit."""
    from ..memory import advice
    from ..resolve import constraints, memory_inputs
    from .request import resolved

    selection, plan = resolved(options, argv, skip=tuple(constraints.MEMORY))
    memory = memory_inputs.estimate(selection, plan.flags)
    if memory is None or not memory.sized:
        why = memory_inputs.unsized(selection, plan.flags)
        raise ConfigError(f"the memory of {selection.model.name} on {selection.hardware.name} is not counted: {why}.")
    fit = advice.fit(memory)
    answer(options, fit.to_json, lambda: advice.text(memory, fit))
    return 0 if fit.fits else 1
