"""
A node without an API server (`--headless`): its ranks compute for the first node, which serves and proves all of them.

It is ready when its part of the model is loaded and the first node is connected. It ends with the first node.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...healthcheck.state import PHASES
from .. import served_plan
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import ExitReason
from ..vllm_log.startup_phase import StartupProgress
from .context import VllmSession
from .peers import Peers
from .startup import until
from .stop_signals import StopSignals, first_of
from .vllm_process import VllmProcess

LOADED = PHASES[PHASES.index("loading weights") + 1 : PHASES.index("proving")]
"""The phases after the weights are loaded."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Follower:
    """One node without an API server, from its start to its end."""

    session: VllmSession
    process: VllmProcess
    progress: StartupProgress
    peers: Peers

    async def follow(self, cache: Path, healthy: Callable[[], None]) -> ExitReason | None:
        """
        Bring the node to ready and keep it; return why its start is abandoned.

        `cache` is the Hub's; `healthy` is called when the node has been ready for a long time.
        """
        health, shape = self.session.health, self.peers.shape
        if reason := await until(self._joined, self.session, self.process, self.progress, cache):
            return reason
        self.process.note_shared_memory()
        health.enter("ready")
        health.ready_after = time.monotonic() - health.started
        log.info(f"ready {health.ready_after:.0f} s after start, as node {shape.node_rank} of {shape.nodes}")
        await asyncio.sleep(self.session.settings.supervise.healthy_after)
        healthy()
        await asyncio.Event().wait()
        return None

    async def _joined(self) -> bool:
        progress = self.progress
        loaded = progress.phase in LOADED or progress.detail == "preparing the weights"
        return self.peers.connected and (loaded or not progress.heard)  # a short log shows no phases

    async def leave(
        self, signals: StopSignals, exited: asyncio.Task[int], lost: asyncio.Task[ExitReason]
    ) -> ExitReason:
        """After a request to stop: wait until the first node has finished its requests and left, then end."""
        health, supervise, watched = self.session.health, self.session.settings.supervise, self.peers.watched
        health.draining = True
        health.enter("draining")
        if health.ready_after is None:
            return ExitReason(exit_cause.DRAINED, "stopped during the start")
        most = supervise.drain_wait + served_plan.shutdown_timeout(self.session.plan) + supervise.stop_grace
        if watched:
            health.detail = "until the first node has left"
        else:  # vLLM finishes the requests of its engines by itself
            self.process.signal(signal.SIGTERM)
        await first_of(exited, lost, signals.hurry.wait(), asyncio.sleep(most))
        if lost.done():
            return ExitReason(exit_cause.DRAINED, "stopped after the first node had left")
        if exited.done() and not watched:
            return ExitReason(exit_cause.DRAINED, "stopped after vLLM on this node had ended")
        if exited.done():
            return ExitReason(exit_cause.ENGINE_DIED, "vLLM on this node died while it was stopped")
        why = "a second signal came" if signals.hurry.is_set() else f"{most:.0f} s are over"
        return ExitReason(exit_cause.CUT, f"{why}, and the first node still runs: its requests were cut")
