"""Drain after a request to stop: the balancer notices, vLLM finishes its requests, and cut ones are reported."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass

from .. import early_signals, served_plan
from ..client.errors import Refused, Unreachable
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import ExitReason
from .context import VllmSession
from .request_count import RequestCount, ShutdownLog
from .stop_signals import StopSignals, first_of
from .vllm_process import VllmProcess

PAUSE = 0.25  # seconds between two readings: vLLM answers while it releases its GPUs, after its last request
PATIENCE = 2.0  # seconds for an answer, which a stop does not wait for any longer


CLOSED = 1.0  # seconds without a reading, after which vLLM's port counts as closed


@dataclass(frozen=True)
class Drained:
    """How a drain ended. `status` is vLLM's, None while it runs."""

    requests: RequestCount
    status: int | None
    signalled: bool
    """Whether vLLM was asked to end."""
    hurried: bool
    """Whether a second signal came."""
    quiet: float
    """Seconds without progress."""
    unread: float
    """Seconds since the last reading of the metrics."""
    seconds: float
    """Seconds since vLLM was asked to end."""


async def drain(
    session: VllmSession,
    process: VllmProcess,
    signals: StopSignals,
    exited: asyncio.Task[int],
    shutdown: ShutdownLog,
) -> ExitReason:
    """Return when vLLM has ended, a second signal came, it hangs, or the time is over; the process may go on."""
    health, supervise = session.health, session.settings.supervise
    health.draining = True
    health.enter("draining")
    if health.ready_after is None:  # nothing to finish, and vLLM may miss the signal while it loads
        return ExitReason(exit_cause.DRAINED, "stopped during the start")
    now = time.monotonic()
    requests = RequestCount(health.requests, now - health.idle_for(now), log=shutdown)
    reading = asyncio.create_task(_follow(session, requests))
    hurried = asyncio.create_task(signals.hurry.wait())
    try:
        if not signals.by_person:
            await first_of(hurried, exited, asyncio.sleep(supervise.drain_wait))
        if signalled := not (hurried.done() or exited.done()):
            process.signal(signal.SIGTERM)
        began = time.monotonic()
        most = served_plan.shutdown_timeout(session.plan) + supervise.stop_grace
        while (
            not (hurried.done() or exited.done())
            and not (shutdown.died and requests.cut)
            and time.monotonic() - began < most
            and not (requests.cut and time.monotonic() - requests.progressed > supervise.live_grace)
        ):
            await first_of(exited, hurried, asyncio.sleep(PAUSE))
    finally:
        reading.cancel()
        hurried.cancel()
    if not exited.done():
        await _read(session, requests)
    else:
        await process.finish_log()
    now = time.monotonic()
    ended = Drained(
        requests,
        exited.result() if exited.done() else None,
        signalled,
        signals.hurry.is_set(),
        quiet=now - requests.progressed,
        unread=now - requests.read_at,
        seconds=now - began,
    )
    return judge(ended, served_plan.shutdown_timeout(session.plan), supervise.live_grace)


def judge(drained: Drained, allowed: float, live_grace: float) -> ExitReason:
    """Return why a replica that was asked to stop ended; `allowed` is vLLM's shutdown-timeout."""
    requests, status = drained.requests, drained.status
    if _whole(drained):
        return ExitReason(exit_cause.DRAINED, "stopped after every running request had finished")
    if status == 0 and _silent(drained):
        why = "vLLM ended with status 0, but closed its port before, and logged no count"
        return ExitReason(exit_cause.CUT, f"whether {_cut(requests.cut) or 'requests were cut'} is unknown: {why}")
    return _incomplete(drained, allowed, live_grace)


def _incomplete(drained: Drained, allowed: float, live_grace: float) -> ExitReason:
    requests, status = drained.requests, drained.status
    cut = _cut(requests.cut) or "whether requests were cut is unknown"
    if status is None and drained.hurried:
        return ExitReason(exit_cause.CUT, f"{cut}: a second signal came before they were answered")
    if status is None and requests.log.died and drained.seconds < allowed:
        return ExitReason(exit_cause.ENGINE_DIED, f"{cut}: vLLM's engine died while it was stopped")
    if status is None and (requests.last is None or drained.quiet > live_grace):
        why = f"vLLM made no progress for {drained.quiet:.0f} s while it was stopped"
        return ExitReason(exit_cause.HUNG, f"{cut}: {why} (supervise.live-grace)")
    if status is not None and (drained.seconds < allowed or not drained.signalled):
        how = early_signals.name_of_status(status) or f"exit status {status}"
        return ExitReason(exit_cause.ENGINE_DIED, f"{cut}: vLLM's engine died while it was stopped ({how})")
    return ExitReason(exit_cause.CUT, f"{cut}: shutdown-timeout ({allowed:.0f} s) expired")


def _cut(count: int) -> str:
    return f"{count} requests were cut" if count > 1 else "1 request was cut" if count else ""


def _whole(drained: Drained) -> bool:
    """Tell whether every request was answered whole; a vLLM that crashed may have lost an answer on its way out."""
    requests, status = drained.requests, drained.status
    if not status:
        return requests.answered
    return requests.idle and (drained.signalled or early_signals.name_of_status(status) == "SIGTERM")


def _silent(drained: Drained) -> bool:
    """Tell whether nothing counts the answers: vLLM logged nothing of its end, and closed its port long before."""
    requests = drained.requests
    return drained.signalled and not requests.log.begun and not requests.failed and drained.unread > CLOSED


async def _follow(session: VllmSession, requests: RequestCount) -> None:
    """Read the metrics again and again."""
    while True:
        await _read(session, requests)
        await asyncio.sleep(PAUSE)


async def _read(session: VllmSession, requests: RequestCount) -> None:
    """Read the metrics once, where vLLM answers."""
    with contextlib.suppress(Unreachable, Refused, TimeoutError):
        async with asyncio.timeout(PATIENCE):  # wait_for of Python 3.11 loses a cancellation that meets an answer
            counters = await session.client.counters()
        requests.read(counters, time.monotonic())
        session.health.detail = f"{requests.open} requests running"
