"""What one replica of a plan needs: GPUs, sequences per step, seconds to stop."""

from __future__ import annotations

import math

from . import served_plan, supervision_settings
from .plan import TENSOR_PARALLEL_SIZE, Plan

_SIZES = (TENSOR_PARALLEL_SIZE, "pipeline-parallel-size", "data-parallel-size")
_LAST = 5
"""Seconds to end what remains after the drain."""


def gpus(plan: Plan) -> int:
    """Return the GPUs that one replica takes."""
    return math.prod(int(plan.value(name, 1)) for name in _SIZES)


def sequences(plan: Plan) -> int:
    """Return how many sequences one step of a replica computes; 0 when the plan leaves it to vLLM."""
    return int(plan.value("max-num-seqs") or 0)


def stop_seconds(plan: Plan) -> int:
    """Return how long a replica may take to stop; SIGKILL before that would cut requests off."""
    supervise = supervision_settings.read(plan.supervision).supervise
    drain = supervise.drain_wait + served_plan.shutdown_timeout(plan)
    return round(drain + supervise.stop_grace) + _LAST
