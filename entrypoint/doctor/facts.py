"""Read the facts that the checks need for one plan; what cannot be read is listed with the reason."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..checkpoint.read import Checkpoint
from ..machine.host import Host, read_host
from ..machine.machine import Machine
from ..machine.requirements import HostRequirements, host_requirements
from ..memory.estimate import MemoryEstimate
from ..plan import Plan
from ..resolve import memory_inputs
from ..resolve.select import Selection
from .checkpoint_requirements import CheckpointRequirements, checkpoint_requirements
from .installed_patches import applied_patches
from .options import DoctorOptions
from .served_checkpoint import read_served

_NO_DRIVER = "this host: it has no NVIDIA driver"


@dataclass(frozen=True)
class Facts:
    """Checkpoint, host and memory, each None where it cannot be checked, and what the plan requires of them."""

    checkpoint: Checkpoint | None
    checkpoint_required: CheckpointRequirements
    host: Host | None
    host_required: HostRequirements
    memory: MemoryEstimate | None
    not_checked: tuple[str, ...]


def read_facts(selection: Selection, plan: Plan, machine: Machine, options: DoctorOptions) -> Facts:
    """Read checkpoint and host, and estimate the memory, for one plan."""
    checkpoint, absent = read_served(plan, selection.model, options.environ)
    patches = applied_patches() if checkpoint and checkpoint.is_deepseek_v4 else None
    required = host_requirements(plan, selection.hardware, selection.model.get("architecture"), options.environ)
    if options.serving:  # the health server already has its port
        required = dataclasses.replace(required, listening=True)
    checkable = options.serving or checkpoint is None or not required.gpus or _has_driver(machine)
    memory = memory_inputs.estimate(selection, plan.flags)
    uncounted = memory_inputs.unsized(selection, plan.flags)
    not_checked = {
        f"the checkpoint: {absent}": checkpoint is None,
        _NO_DRIVER: not checkable,
        f"memory: {uncounted}": uncounted and required.gpus,
    }
    return Facts(
        checkpoint=checkpoint,
        checkpoint_required=checkpoint_requirements(plan, selection.model, patches),
        host=read_host(machine, required) if checkable else None,
        host_required=required,
        memory=memory,
        not_checked=tuple(reason for reason, holds in not_checked.items() if holds),
    )


def _has_driver(machine: Machine) -> bool:
    """Tell whether this host has a driver, even one that does not answer; a checkpoint can be checked without one."""
    return not machine.driver.error or bool(machine.kernel_module)
