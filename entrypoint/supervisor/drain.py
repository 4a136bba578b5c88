"""Drain after a request to stop: the balancer notices, vLLM finishes its requests, and cut ones are reported."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

from .. import served_plan
from ..client.errors import Refused, Unreachable
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import ExitReason
from .context import VllmSession
from .stop_signals import StopSignals, first_of
from .vllm_process import VllmProcess

PAUSE = 0.5  # seconds between two reads of the running requests
PATIENCE = 2.0  # seconds for an answer, which a stop does not wait for any longer


async def drain(
    session: VllmSession, process: VllmProcess, signals: StopSignals, exited: asyncio.Task[int]
) -> ExitReason:
    """Return when vLLM has finished its requests, a second signal came, or the time is over; the process may go on."""
    health, supervise = session.health, session.settings.supervise
    health.draining = True
    health.enter("draining")
    if health.ready_after is None:  # nothing to finish, and vLLM may miss the signal while it loads
        return ExitReason(exit_cause.DRAINED, "stopped during the start")
    if not signals.by_person:
        await first_of(signals.hurry.wait(), exited, asyncio.sleep(supervise.drain_wait))
    running = await _count(session, 0)  # before the signal: vLLM closes its port soon after it
    process.signal(signal.SIGTERM)
    allowed = served_plan.shutdown_timeout(session.plan)
    allowed_until = time.monotonic() + allowed
    while not exited.done() and not signals.hurry.is_set() and time.monotonic() < allowed_until + supervise.stop_grace:
        running = await _count(session, running)
        await first_of(exited, signals.hurry.wait(), asyncio.sleep(PAUSE))
    if running and (not exited.done() or time.monotonic() > allowed_until):
        why = "a second signal came" if signals.hurry.is_set() else f"shutdown-timeout ({allowed:.0f} s) expired"
        return ExitReason(exit_cause.CUT, f"{running} requests were still running when {why}")
    return ExitReason(exit_cause.DRAINED, "stopped after every running request had finished")


async def _count(session: VllmSession, known: int) -> int:
    """Return how many requests run; `known` where vLLM does not answer."""
    with contextlib.suppress(Unreachable, Refused, TimeoutError):
        known = (await asyncio.wait_for(session.client.counters(), PATIENCE)).running
        session.health.detail = f"{known} requests running"
    return known
