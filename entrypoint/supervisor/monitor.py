"""Monitor a ready replica: its progress, its draft acceptance under live traffic, and the soundness of its answers."""

from __future__ import annotations

import asyncio
import logging
import math
import time

from ...healthcheck import canary
from ...healthcheck.positions import COLLAPSED, by_position, collapses
from ...healthcheck.progress import EngineProgress
from ...healthcheck.state import Acceptance
from ...healthcheck.traffic import TrafficWindow
from ...healthcheck.window import Window
from ..client.counters import Counters
from ..client.errors import OutOfFiles, Refused, Unreachable
from ..draft_floors import Floors
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import ExitReason
from .context import VllmSession
from .readiness_gate import corruption

CANARY_SHARE = 0.005  # of the tokens that traffic generates may be spent on corruption canaries beside it
FRUITLESS = 300
"""Draft tokens in a row without an accepted one that no sound drafter makes (unmeasured on real weights)."""
log = logging.getLogger(__name__)


async def watch(session: VllmSession) -> ExitReason:
    """Watch until there is a reason to end vLLM, and return it."""
    monitor = _Monitor(session)
    try:
        while True:
            if reason := await monitor.poll():
                return reason
            await asyncio.sleep(session.settings.supervise.poll)
    finally:
        monitor.close()


class _Monitor:
    def __init__(self, session: VllmSession) -> None:
        self.session, self.health = session, session.health
        self.supervise = session.settings.supervise
        now = time.monotonic()
        self.progress, self.window = EngineProgress(now), Window(self.supervise.window)
        self.traffic = TrafficWindow()
        self.sound_at, self.used_at = now, now
        self.generated = self.spared = math.inf
        """Tokens that vLLM has generated, and had when the last corruption canary ended; unknown before a reading."""
        self.owed = 1
        """Runs of the corruption canary that traffic has to pay for before the next one."""
        self.blind, self.fruitless = False, False
        self.canary: asyncio.Task[ExitReason | None] | None = None

    def close(self) -> None:
        """Cancel a canary that still runs."""
        if self.canary:
            self.canary.cancel()

    async def poll(self) -> ExitReason | None:
        """Read the counters once; return why vLLM has to end, or None."""
        health, grace = self.health, self.supervise.live_grace
        try:
            counters = await self.session.client.counters()
        except OutOfFiles as error:
            self._could_not_look(error)
        except (Unreachable, Refused):
            self.progress.lost(time.monotonic())
        else:
            self._read(counters, time.monotonic())
        reason = self._canaries(time.monotonic())
        health.progressed, health.busy = self.progress.at, self.progress.busy
        if (idle := health.idle_for(time.monotonic())) > grace:
            sentence = (
                f"no progress for {idle:.0f} s while there was work ({self.progress.work}); the limit is {grace:.0f} s"
            )
            return ExitReason(exit_cause.HUNG, f"{sentence} (supervise.live-grace)")
        return reason

    def _could_not_look(self, error: OutOfFiles) -> None:
        if not self.blind:
            log.warning(f"vLLM cannot be watched: {error}. Raise the limit of open files.")
        self.blind = True
        self.progress.unknown(time.monotonic())

    def _read(self, counters: Counters, now: float) -> None:
        self.blind = False
        self.progress.feed(now, counters)
        self.health.requests = counters.running + counters.waiting
        self.health.traffic = self.traffic.feed(now, counters)
        self.generated = counters.generated
        self.spared = min(self.spared, counters.generated)  # a restarted vLLM counts from 0
        if self.health.requests:
            self.used_at = now
        if self.session.plan.draft_tokens:
            self.window.add(now, counters.drafted, counters.accepted, counters.drafts, counters.accepted_at)
            self._judge_drafts()

    def _judge_drafts(self) -> None:
        health, floors, least = self.health, self.health.floors or Floors(0.0), self.supervise.window_drafts
        fruitless = self.window.fruitless()
        live = Acceptance(fruitless, 0) if fruitless >= FRUITLESS else self.window.acceptance()
        health.live_acceptance = live
        collapsed = collapses(live, floors, least)
        below = collapsed or fruitless >= FRUITLESS or self.window.below(floors.total, least)
        if fruitless >= FRUITLESS and not self.fruitless:
            log.warning(f"none of the last {fruitless} draft tokens was accepted: the drafter only costs time.")
        elif collapsed and not health.collapsed:
            log.warning(f"live traffic, {by_position(live)}: {COLLAPSED} (gate.position-floors).")
        elif below and not health.below_floor:
            log.warning(
                f"{live.accepted} of {live.drafted} draft tokens of the last {self.supervise.window:.0f} s"
                f" were accepted ({live.ratio or 0:.0%}); the floor is {floors.total:.0%} (gate.acceptance-floor)."
            )
        health.below_floor, health.collapsed, self.fruitless = below, collapsed, fruitless >= FRUITLESS

    def _canaries(self, now: float) -> ExitReason | None:
        """Send a canary through an idle engine, and read the result of the last one."""
        if self.canary and self.canary.done():
            done, self.canary = self.canary, None
            error, self.used_at = done.exception(), now
            if error is not None and not isinstance(error, (Unreachable, Refused)):
                raise error
            self.progress.canary_out = error is not None and not isinstance(
                error, OutOfFiles
            )  # a canary without an answer still counts as work
            if error is None:
                self.progress.at = now
                return done.result()
        if self.canary is None:
            idle = now - self.used_at >= self.supervise.idle_canary_every
            due = now - self.sound_at >= self.supervise.corruption_every
            if idle or (due and self._affordable()):
                self.progress.canary_out = True
                self.canary = asyncio.create_task(self._corruption(not idle) if due else self._one_token())
        return None

    def _affordable(self) -> bool:
        """Tell whether traffic has generated enough tokens for a corruption canary beside it."""
        cost = canary.cost(1, self.session.settings.gate.tokens)
        return self.owed * cost <= CANARY_SHARE * (self.generated - self.spared)

    async def _one_token(self) -> None:
        await canary.one_token(self.session.client)

    async def _corruption(self, during_traffic: bool) -> ExitReason | None:
        """Run the corruption canary; return a reason only if it fails twice in a row."""
        self.owed = 1
        try:
            if not await corruption(self.session, during_traffic=during_traffic):
                return None
            self.owed = 2
            return await corruption(self.session, during_traffic=during_traffic)
        finally:
            self.sound_at, self.spared = time.monotonic(), self.generated
