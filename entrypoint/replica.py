"""What one replica of a plan needs: GPUs, sequences per step, seconds to stop."""

from __future__ import annotations

from math import ceil

from . import served_plan, supervision_settings
from .errors import ConfigError
from .kv_offloading import SHM_GIB, offloading_of
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


def offloading_gib(plan: Plan) -> int:
    """Return the host memory that copies of KV caches take on one host, in whole GiB."""
    return ceil(offloading_of(plan.flags).gib * parallel_of(plan.flags).node_replicas)


def memory_gib(gpus: int, offloading: int = 0) -> int:
    """
    Return the memory limit of a replica in GiB, its shared memory included.

    It is 32, and 32 for each GPU, both unmeasured, and what KV offloading takes.
    """
    return 32 + 32 * gpus + offloading


def shm_gib(offloading: int) -> int:
    """Return the shared memory of a replica with GPUs in GiB."""
    return SHM_GIB + offloading


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
