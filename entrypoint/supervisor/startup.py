"""Follow a vLLM from its start until it answers: its phase, how fast weights load, and whether it makes progress."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from ...healthcheck import checks
from .. import procfs, served_plan
from ..checkpoint import identify
from ..plan import Plan
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import ExitReason
from ..vllm_log.startup_phase import MOVING, LoadRate, SignsOfLife, StartupProgress, loaded_bytes
from .cache_growth import held
from .context import VllmSession
from .received import arrived
from .vllm_process import VllmProcess

MAY_DOWNLOAD = ("starting", "loading weights")
PAUSE = 0.5  # seconds between two checks
LOOK_EVERY = 2.0  # seconds between two looks at the Hub's cache, which may hold hundreds of files
log = logging.getLogger(__name__)


async def until_up(
    session: VllmSession, process: VllmProcess, progress: StartupProgress, cache: Path
) -> ExitReason | None:
    """
    Return None when vLLM's own health route answers, or why the start is abandoned; `cache` is the Hub's.

    The route is queried only once a process of ours listens: until then, another server may answer on the port.
    """
    port = served_plan.port(session.plan)

    async def answers() -> bool:
        return any(procfs.listens(pid, port) for pid in process.family()) and await session.client.healthy()

    return await until(answers, session, process, progress, cache)


async def until(
    up: Callable[[], Awaitable[bool]],
    session: VllmSession,
    process: VllmProcess,
    progress: StartupProgress,
    cache: Path,
) -> ExitReason | None:
    """Return None when vLLM is `up`, or why the start is abandoned, because a phase makes no progress."""
    health = session.health
    limits = {phase.replace("-", " "): seconds for phase, seconds in session.settings.supervise.stall.items()}
    rate, download, total = LoadRate(), _Download(cache), _weights_bytes(session.plan)
    silent, reported = SignsOfLife(sum(limits.values())), time.monotonic()
    while not await up():
        now = time.monotonic()
        if health.phase == "loading weights":
            rate.add(now, await asyncio.to_thread(loaded_bytes, process.family()))
            health.rate = rate.per_second
            if progress.percent is None:
                health.percent = rate.percent(total)
            if (health.rate or 0) > MOVING:
                progress.moved(now)
        if health.phase in MAY_DOWNLOAD and (speed := await download.per_second(now, process.family())) > MOVING:
            health.rate = max(health.rate or 0, speed)
            progress.moved(now)
        if not progress.heard and await asyncio.to_thread(silent.seen, now, process.family()):
            progress.moved(now)
        health.stall_limit = limits.get(health.phase)
        if stalled := progress.stalled(now, limits):
            health.stalled = stalled
            return ExitReason(exit_cause.STALLED, stalled)
        if now - max(reported, health.phase_began) >= session.report_every:
            reported = now
            log.info(f"start: {checks.start_state(health, now)}")
        await asyncio.sleep(PAUSE)
    return None


class _Download:
    """How fast something is downloaded: by vLLM's processes, or by any other into the Hub's cache."""

    def __init__(self, cache: Path) -> None:
        self._cache, self._looked = cache, 0.0
        self._arrived, self._held = LoadRate(), LoadRate()

    async def per_second(self, now: float, pids: list[int]) -> float:
        """Return bytes a second."""
        self._arrived.add(now, await asyncio.to_thread(arrived, pids))
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._held.add(now, await asyncio.to_thread(held, [self._cache]))
        return max(self._arrived.per_second or 0.0, self._held.per_second or 0.0)


def _weights_bytes(plan: Plan) -> int:
    """Return the size of the weights where the model is a folder; 0 where it is not."""
    folder = Path(str(plan.value("model", "")))
    return identify.weights_bytes(folder) if folder.is_dir() else 0
