"""What advice on a failure has to know of this start: its plan, and how its GPUs are connected."""

from __future__ import annotations

from ..machine.machine import Machine
from ..plan import Plan
from ..vllm_log.situation import Situation
from ..vllm_log.xid import Xid
from .context import ServeContext


def situation(plan: Plan, machine: Machine | None, context: ServeContext, xids: tuple[Xid, ...] = ()) -> Situation:
    """Return the situation of a plan on a machine, where the driver has reported these errors."""
    if machine is None or plan.tensor_parallel_size == 1:
        return Situation.of(plan, nvlink=None, xids=xids)
    topology = machine.seen_with({**context.environ, **plan.environment()}).topology
    group = topology.gpus[: plan.tensor_parallel_size]
    known = len(group) == plan.tensor_parallel_size and bool(topology.pairs)
    return Situation.of(plan, nvlink=topology.nvlinked(group) if known else None, xids=xids)
