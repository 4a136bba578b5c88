"""
The other nodes of one server: whether vLLM's processes there are still connected to those here.

vLLM 0.32.0 notices a lost node with the next request, and an idle node without an API server never does. Ranks of all
nodes meet at the first node's master port, and hold a connection there for as long as they live; it is watched here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .. import procfs
from ..parallel import Parallel, parallel_of
from ..plan import Plan
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import ExitReason
from ..vllm_log.root_cause import RootCause
from ..vllm_log.standing import Standing

MASTER_PORT = 29501
"""Where ranks meet; vLLM 0.32.0's default (config/parallel.py)."""
PAUSE = 1.0  # seconds between two looks
PATIENCE = 1800.0  # seconds that a node may wait for others; PyTorch's time-out with gloo
LOOKS = 2  # in a row without a connection, after which a node counts as lost


class Peers:
    """The nodes that this one is connected to, and those that it was connected to."""

    def __init__(self, plan: Plan) -> None:
        self.shape: Parallel = parallel_of(plan.flags)
        self._port = int(plan.value("master-port") or MASTER_PORT)
        self._held: dict[tuple[int, str], int] = {}
        """Looks in a row in which a connection was missing, by the process that held it and the node's address."""
        self._suspect, self.gone = "", ""
        """The address of a node that is lost."""

    @property
    def watched(self) -> bool:
        """Whether the ranks meet at a known port; engines that only share `data-parallel-address` do not."""
        return self.shape.nodes > 1

    @property
    def connected(self) -> bool:
        """Whether this node is connected to another one, or that cannot be known."""
        return bool(self._held) or not self.watched

    def look(self, pids: list[int]) -> str:
        """
        Look at the connections of these processes; return the address of a node that is lost, or nothing.

        A connection that ended with the process here that held it says nothing about the other node.
        """
        now = procfs.connected(pids, self._port, inbound=self.shape.node_rank == 0)
        for pid, address in now:
            self._held[pid, address] = 0
        for held in [held for held in self._held if held not in now]:
            if held[0] not in pids:
                del self._held[held]
                continue
            self._held[held] += 1
            self._suspect = held[1]
            if self._held[held] >= LOOKS:
                self.gone = held[1]
        return self.gone

    def blamed(self, roots: list[RootCause]) -> bool:
        """Tell whether a lost node explains why vLLM ended here: no line of its log names another cause."""
        if any(root.standing is Standing.CAUSE for root in roots):
            return False
        self.gone = self.gone or self._suspect
        return bool(self.gone)

    @property
    def missing(self) -> bool:
        """Whether a node has not joined yet: it may be fetching its weights."""
        expected = self.shape.nodes - 1 if self.shape.node_rank == 0 else 1
        return self.watched and len({address for _, address in self._held}) < expected

    async def lost(
        self, family: Callable[[], list[int]], *, ready: Callable[[], bool], waits: Callable[[], None]
    ) -> ExitReason:
        """
        Return when a node is lost; never where none can be watched.

        `waits` is called again and again while this node waits for another one, at most as long as vLLM does.
        """
        patient_until = time.monotonic() + PATIENCE
        while not self.watched or not await asyncio.to_thread(self.look, family()):
            if self.missing and time.monotonic() < patient_until:
                waits()
            await asyncio.sleep(PAUSE)
        return self.reason(ready=ready())

    def reason(self, *, ready: bool) -> ExitReason:
        """Return why this node ends with the one that is lost."""
        cause = exit_cause.ENGINE_DIED if ready else exit_cause.START_FAILED
        which = "a node" if self.shape.node_rank == 0 else "the first node"
        sentence = f"{which} of this server is gone: find the cause in its own log. All nodes have to start again."
        return ExitReason(cause, sentence, f"vLLM at {self.gone} closed its connections", failure="rank-lost")
