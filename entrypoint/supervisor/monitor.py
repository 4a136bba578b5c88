"""A replica that is ready: does it get on, what does its draft head do for live traffic, is it sound when idle."""

from __future__ import annotations

import asyncio
import time

from ...healthcheck import canary
from ...healthcheck.progress import Progress
from ...healthcheck.window import Window
from .. import served_plan
from ..client.counters import Counters
from ..client.errors import Refused, Unreachable
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import Ending
from .context import Replica
from .readiness_gate import corruption


async def watch(replica: Replica) -> Ending:
    """Watch until there is a reason to end the engine, and return it."""
    watched = _Watched(replica)
    try:
        while True:
            if ending := await watched.look():
                return ending
            await asyncio.sleep(replica.care.supervise.poll)
    finally:
        watched.close()


class _Watched:
    def __init__(self, replica: Replica) -> None:
        self.replica, self.health, self.supervise = replica, replica.health, replica.care.supervise
        now = time.monotonic()
        self.progress, self.window = Progress(now), Window(self.supervise.window)
        self.sound_at, self.used_at = now, now
        self.canary: asyncio.Task[Ending | None] | None = None

    def close(self) -> None:
        """Take a canary that is out back."""
        if self.canary:
            self.canary.cancel()

    async def look(self) -> Ending | None:
        """Ask the engine once and conclude; return why it has to end, or None."""
        health, grace = self.health, self.supervise.live_grace
        try:
            counters = await self.replica.client.counters()
        except (Unreachable, Refused):
            self.progress.lost(time.monotonic())
        else:
            self._read(counters, time.monotonic())
        ending = self._canaries(time.monotonic())
        health.progressed, health.busy = self.progress.at, self.progress.busy
        if (still := health.idle_for(time.monotonic())) > grace:
            sentence = (
                f"no progress for {still:.0f} s while there was work ({self.progress.work}), {grace:.0f} s are allowed"
            )
            return Ending(exit_cause.HUNG, f"{sentence} (supervise.live-grace).")
        return ending

    def _read(self, counters: Counters, now: float) -> None:
        self.progress.feed(now, counters)
        if counters.running or counters.waiting:
            self.used_at = now
        if served_plan.draft_tokens(self.replica.plan):
            self.window.add(now, counters.drafted, counters.accepted)
            self._judge_drafts()

    def _judge_drafts(self) -> None:
        health, floor = self.health, self.health.floor or 0.0
        health.live_acceptance = live = self.window.acceptance()
        below = self.window.below(floor, self.supervise.window_drafts)
        if below and not health.below_floor:
            self.replica.say(
                f"WARNING: {live.accepted} of {live.drafted} draft tokens of the last {self.supervise.window:.0f} s"
                f" were accepted ({live.ratio or 0:.0%}); the floor is {floor:.0%} (gate.acceptance-floor)."
            )
        health.below_floor = below

    def _canaries(self, now: float) -> Ending | None:
        """Send a canary through an engine that is idle, and read what came of the last one."""
        if self.canary and self.canary.done():
            done, self.canary = self.canary, None
            error, self.used_at = done.exception(), now
            if error is not None and not isinstance(error, (Unreachable, Refused)):
                raise error
            self.progress.canary_out = error is not None  # what did not come back is still owed
            if error is None:
                self.progress.at = now
                return done.result()
        if self.canary is None and now - self.used_at >= self.supervise.idle_canary_every:
            due = now - self.sound_at >= self.supervise.corruption_every
            self.sound_at = now if due else self.sound_at
            self.progress.canary_out = True
            self.canary = asyncio.create_task(self._corruption() if due else self._one_token())
        return None

    async def _one_token(self) -> None:
        await canary.one_token(self.replica.client)

    async def _corruption(self) -> Ending | None:
        """Not ready after the first garbled answer; given up when the next one is garbled too."""
        if not await corruption(self.replica):
            return None
        return await corruption(self.replica)
