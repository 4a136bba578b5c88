"""From a started engine to one that answers: what it is at, how fast the weights come, and whether it still gets on."""

from __future__ import annotations

import asyncio
import time

from .. import procfs, served_plan
from ..vllm_log import exit_cause, startup_phase
from ..vllm_log.exit_cause import Ending
from .context import Replica
from .vllm_process import Engine

PAUSE = 0.5  # seconds between two looks
MOVING = 1 << 20  # bytes a second above which weights count as coming


async def boot(replica: Replica, engine: Engine, log: startup_phase.Watch) -> Ending | None:
    """
    Return None when the engine's own health route answers, or why the start is given up.

    Another server may answer on the port until vLLM comes to take it: it is not asked.
    """
    health = replica.health
    limits = {phase.replace("-", " "): seconds for phase, seconds in replica.care.supervise.stall.items()}
    rate, total = startup_phase.Rate(), served_plan.weights_bytes(replica.plan)
    port = served_plan.port(replica.plan)
    while not (procfs.listening(engine.family(), port) and await replica.client.healthy()):
        now = time.monotonic()
        if health.phase == "loading weights":
            rate.add(now, await asyncio.to_thread(startup_phase.loaded_bytes, engine.family()))
            health.rate = rate.per_second
            if log.percent is None:
                health.percent = rate.percent(total)
            if (health.rate or 0) > MOVING:
                log.progress(now)
        health.stall_limit = limits.get(health.phase)
        if stalled := log.stalled(now, limits):
            health.stalled = stalled
            return Ending(exit_cause.STALLED, stalled)
        await asyncio.sleep(PAUSE)
    return None
