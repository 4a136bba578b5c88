"""
One simulated replica: vLLM's port and the supervisor's, with the times of a recording and none of the work.

All requests that run advance in the same step, as in vLLM; a step takes as long as the recording says for so many. Those
that are too many wait their turn. A prefill takes its time and none of the others'.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections import deque
from dataclasses import dataclass, field

from dsv4_serve.entrypoint.supervision_settings import Supervise
from qualification.fleet.door import Door, Request
from qualification.fleet.timings import Recording

SUPERVISE = Supervise()
"""The supervisor's times as shipped: `poll`, `drain-wait`."""
READY_GRACE = float(os.environ.get("DSV4_SUPERVISE_READY_GRACE", SUPERVISE.ready_grace))


@dataclass
class Log:
    """What reached all replicas of a process, by the clock that the clients have too (CLOCK_MONOTONIC)."""

    arrivals: list[tuple[int, float, int, float]] = field(default_factory=list)
    """Request, when, replica, seconds since its client sent it."""
    renders: list[tuple[float, int]] = field(default_factory=list)
    """When and at which replica the token ids of a prompt were requested."""
    checks: list[tuple[float, int]] = field(default_factory=list)
    """When and at which replica health was checked."""
    loads: list[tuple[float, list[int]]] = field(default_factory=list)
    """When, and how many requests each replica had, running and waiting."""


class Replica:
    """A replica by its number; the ports at its address are vLLM's and the supervisor's."""

    def __init__(self, number: int, address: str, ports: tuple[int, int], recording: Recording, log: Log) -> None:
        self.number, self.address, self.ports = number, address, ports
        self.recording, self.log = recording, log
        self.running: list[Request] = []
        self.waiting: deque[Request] = deque()
        self.doors: set[Door] = set()
        self.servers: list[asyncio.Server] = []
        self.slow = 1.0
        self.frozen = self.hung = self.refusing = False
        self.ready = True
        self.stepping: asyncio.TimerHandle | None = None
        self.later: list[asyncio.TimerHandle] = []

    @property
    def load(self) -> int:
        return len(self.running) + len(self.waiting)

    async def start(self) -> None:
        """Listen, as after a start whose gates were passed."""
        self.frozen = self.hung = self.refusing = False
        self.ready = True
        loop = asyncio.get_running_loop()
        for place, port in enumerate(self.ports):
            listening = socket.socket()
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.address, port))
            server = await loop.create_server(
                lambda health=bool(place): Door(self, health), sock=listening, backlog=2048
            )
            self.servers.append(server)

    def kill(self) -> None:
        """End as SIGKILL ends a process: every socket is closed."""
        for handle in [*self.later, *([self.stepping] if self.stepping else [])]:
            handle.cancel()
        for server in self.servers:
            server.close()
        for door in list(self.doors):
            door.transport.abort()
        self.servers, self.later, self.stepping = [], [], None
        self.running.clear()
        self.waiting.clear()

    def hang(self) -> None:
        """The engine stands still; /health goes on saying 200, the supervisor notices after its grace."""
        self.hung = True
        self._then(READY_GRACE + random.random() * SUPERVISE.poll, self._not_ready)

    def freeze(self, *, frozen: bool) -> None:
        """Engine and supervisor stand still, as with SIGSTOP: connections are accepted, nothing is answered."""
        self.frozen = frozen
        if not frozen:
            for door in list(self.doors):
                door.data_received(b"")
            self._step_later()

    def drain(self) -> None:
        """SIGTERM: not ready at once, no new requests after `drain-wait`, the end when what ran is finished."""
        self._not_ready()
        self._then(SUPERVISE.drain_wait, self._refuse)

    def _not_ready(self) -> None:
        self.ready = False

    def _refuse(self) -> None:
        self.refusing = True
        if self.load:
            self._then(0.05, self._refuse)
        else:
            self.kill()

    def _then(self, seconds: float, what) -> None:
        self.later.append(asyncio.get_running_loop().call_later(seconds, what))

    def submit(self, request: Request) -> None:
        """Take a request: it runs when there is a place, and its first token comes after the prefill."""
        self.waiting.append(request)
        self._admit()

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.recording.max_num_seqs:
            request = self.waiting.popleft()
            if not request.gone:
                request.made = -1
                self.running.append(request)
                self._then(self.recording.first_token * self.slow, lambda request=request: self._prefilled(request))
        if len(self.later) > 256:
            now = asyncio.get_running_loop().time()
            self.later = [one for one in self.later if not one.cancelled() and one.when() > now]

    def _prefilled(self, request: Request) -> None:
        if self.hung or self.frozen:
            return self._then(0.05, lambda: self._prefilled(request))
        request.made = 0
        return self._step_later()

    def _step_later(self) -> None:
        if self.stepping is None and not (self.hung or self.frozen) and any(r.made >= 0 for r in self.running):
            seconds = self.recording.step(len(self.running)) * self.slow
            self.stepping = asyncio.get_running_loop().call_later(seconds, self._step)

    def _step(self) -> None:
        self.stepping = None
        if self.hung or self.frozen:
            return
        stamp = time.monotonic_ns()
        self.running = [request for request in self.running if not request.gone]
        for request in self.running:
            if request.made >= 0:
                request.made += 2 if random.random() < self.recording.acceptance else 1
                request.door.token(stamp, last=request.made >= request.tokens)
        self.running = [r for r in self.running if r.made < r.tokens]
        self._admit()
        self._step_later()
