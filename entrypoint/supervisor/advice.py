"""What advice on a failure has to know of this start: its plan, and how its GPUs are connected."""

from __future__ import annotations

from .. import process_limits
from ..machine.machine import Machine
from ..plan import Plan
from ..process_limits import ProcessLimit
from ..vllm_log.situation import Situation
from ..vllm_log.xid import Xid
from .context import ServeContext


def situation(
    plan: Plan,
    machine: Machine | None,
    context: ServeContext,
    xids: tuple[Xid, ...] = (),
    limits: tuple[ProcessLimit, ...] = (),
) -> Situation:
    """Return the situation of a plan on a machine whose driver reported these errors; `limits` are of the start."""
    limit = process_limits.reached(limits, process_limits.read()) if limits else None
    if machine is None or plan.tensor_parallel_size == 1:
        return Situation.of(plan, nvlink=None, xids=xids, limit=limit)
    topology = machine.seen_with({**context.environ, **plan.environment()}).topology
    group = topology.gpus[: plan.tensor_parallel_size]
    known = len(group) == plan.tensor_parallel_size and bool(topology.pairs)
    return Situation.of(plan, nvlink=topology.nvlinked(group) if known else None, xids=xids, limit=limit)
