"""What one replica of a plan needs: GPUs, sequences per step, seconds to stop."""

from __future__ import annotations

from . import served_plan, supervision_settings
from .errors import ConfigError
from .parallel import parallel_of
from .plan import Plan

WAITING = 2
"""Requests sent to a replica for each that it computes at once, so that the next is there when one finishes."""
_LAST = 5
"""Seconds to end what remains after the drain."""


def gpus(plan: Plan) -> int:
    """Return the GPUs that one replica takes on its host."""
    return parallel_of(plan.flags).node_gpus


def sequences(plan: Plan) -> int:
    """Return how many sequences one step of a replica computes; 0 when the plan leaves it to vLLM."""
    return int(plan.value("max-num-seqs") or 0) * parallel_of(plan.flags).data


def memory_gib(gpus: int) -> int:
    """Return the memory limit of a replica in GiB, its shared memory included: 32, and 32 for each GPU. Unmeasured."""
    return 32 + 32 * gpus


def require_one_host(plan: Plan) -> None:
    """Raise ConfigError for a replica of several hosts."""
    if (nodes := parallel_of(plan.flags).nodes) > 1:
        raise ConfigError(
            f"nnodes is {nodes}: a replica of several hosts is started on each of them (docs/how-to/shapes.md), or as a"
            f" LeaderWorkerSet (dsv4 manifests --nodes {nodes}); leave nnodes out here."
        )


def stop_seconds(plan: Plan) -> int:
    """Return how long a replica may take to stop; SIGKILL before that would cut requests off."""
    supervise = supervision_settings.read(plan.supervision).supervise
    drain = supervise.drain_wait + served_plan.shutdown_timeout(plan)
    return round(drain + supervise.stop_grace) + _LAST
