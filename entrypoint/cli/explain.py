"""`dsv4 explain`: show every setting of a plan and where it comes from."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..parallel import parallel_of
from ..plan import DEFAULT, Plan, Setting
from ..text_table import table
from . import arguments
from .output import answer, value_text

if TYPE_CHECKING:
    from ..catalog.catalog import ProfileFile
    from ..catalog.schema import Hardware
    from ..memory.estimate import MemoryEstimate
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
    from ..resolve import memory_inputs
    from .request import resolved

    selection, plan = resolved(options, argv)
    memory = memory_inputs.estimate(selection, plan.flags)
    plan = with_histories(with_shortage(plan, memory), memory)
    if selection.hardware.get("memory_gib") and (reason := memory_inputs.uncounted(selection, plan.flags)):
        plan = dataclasses.replace(plan, choices={**plan.choices, "memory": Setting("not counted", reason)})
    plan = with_unchecked(with_hosts(plan, selection.hardware))
    return answer(options, plan.to_json, lambda: text(plan))


def with_shortage(plan: Plan, memory: MemoryEstimate | None) -> Plan:
    """Return the plan with a row that says so if it holds fewer full-length requests than it promises."""
    from ..memory.advice import shortage

    if memory is None or not (short := shortage(memory)):
        return plan
    origin = f"computed, the KV cache ± {memory.uncertainty_gib:.1f} GiB; dsv4 fit says what to change"
    return dataclasses.replace(plan, choices={**plan.choices, "memory": Setting(short, origin)})


def with_histories(plan: Plan, memory: MemoryEstimate | None) -> Plan:
    """Return the plan with a row for what host memory keeps of its conversations, if it offloads to it."""
    from ..memory.advice import histories, host_histories

    if memory is None or not memory.sized or not (host := host_histories(memory)):
        return plan
    row = Setting(histories(memory, host), "computed; dsv4 fit says what the container needs")
    return dataclasses.replace(plan, choices={**plan.choices, "host memory": row})


def with_hosts(plan: Plan, hardware: ProfileFile[Hardware]) -> Plan:
    """Return the plan with a row that says so if it needs more GPUs than a host of this hardware has."""
    each, shape = hardware.get("gpus_per_host"), parallel_of(plan.flags)
    if not each or shape.node_gpus <= each:
        return plan
    hosts = -(-shape.gpus // each)
    origin = f"{hardware.file_of('gpus_per_host')}: gpus-per-host = {each}; add --nnodes {hosts}"
    return dataclasses.replace(plan, choices={**plan.choices, "hosts": Setting(hosts, origin)})


def with_unchecked(plan: Plan) -> Plan:
    """Return the plan with a row that names its flags of which no table here says whether vLLM starts with them."""
    from ..resolve.kernels import UNCHECKED

    found = [name for name, setting in plan.flags.items() if name.partition(".")[0] in UNCHECKED and setting.value]
    if not found:
        return plan
    origin = "no table here knows which of their values vLLM starts with for this model on this GPU"
    return dataclasses.replace(plan, choices={**plan.choices, "not checked": Setting(", ".join(found), origin)})


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
