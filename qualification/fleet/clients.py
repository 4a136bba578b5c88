"""An open-loop load: requests come at random times at a set rate, however slow the answers are, and each is noted."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from qualification.fleet.timings import MEAN_TOKENS, MOST_TOKENS

WORDS = 180  # about 256 tokens
LOOK = 0.01  # seconds between two looks at the clock, to see how late this process itself is


@dataclass
class SentRequest:
    """One request, seconds by CLOCK_MONOTONIC; `error` is empty when its stream was whole."""

    number: int
    due: float
    sent: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    error: str = "runs"
    late_chunks: list[float] = field(default_factory=list)
    """Seconds from when a replica made a chunk until it was here."""


@dataclass
class Load:
    """Requests at `rate` a second to addresses that `where` names, `sessions` (a share) of them with a session."""

    where: Callable[[], tuple[str, int]]
    rate: float
    key: str
    sessions: float = 0.0
    requests: list[SentRequest] = field(default_factory=list)
    lags: list[tuple[float, float]] = field(default_factory=list)
    """When, and how many seconds this process's event loop was late."""
    stopping: bool = False
    random: random.Random = field(default_factory=lambda: random.Random(7))

    async def run(self) -> None:
        """Ask until `stopping`, then wait for the answers."""
        watching = asyncio.create_task(self._watch())
        tasks: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not self.stopping:
            due += self.random.expovariate(self.rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            one = SentRequest(len(self.requests), due)
            self.requests.append(one)
            task = asyncio.create_task(self._ask(one))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=90)
            for task in left:
                task.cancel()
        watching.cancel()

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(LOOK)
            now = time.monotonic()
            self.lags.append((now, now - before - LOOK))

    async def _ask(self, one: SentRequest) -> None:
        host, port = self.where()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        one.sent = time.monotonic()
        try:
            transport, _ = await loop.create_connection(lambda: Stream(one, done), host, port)
            transport.write(self._request(one))
            one.error = await done
            transport.abort()
        except OSError as problem:
            one.error = f"{type(problem).__name__} {problem}"
        one.ended = time.monotonic()

    def _request(self, one: SentRequest) -> bytes:
        one.sent = time.monotonic()
        words = " ".join(f"{self.random.getrandbits(20):x}" for _ in range(WORDS))
        tokens = min(MOST_TOKENS, 1 + int(self.random.expovariate(1 / MEAN_TOKENS)))
        content = f"request={one.number} sent={int(one.sent * 1e9)} {words}"
        message = {"role": "user", "content": content}
        body = json.dumps({"model": "simulated", "messages": [message], "max_tokens": tokens, "stream": True}).encode()
        session = ""
        if self.random.random() < self.sessions:
            session = f"X-Session-ID: {self.random.randrange(10_000)}\r\n"
        return (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: fleet\r\nAuthorization: Bearer {self.key}\r\n{session}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode() + body


class Stream(asyncio.Protocol):
    """An answer as it comes in: how late its chunks are, and whether it is whole."""

    def __init__(self, one: SentRequest, done: asyncio.Future[str]) -> None:
        self.one, self.done = one, done
        self.tail = b""
        self.status = b""

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self.status = self.status or data[9:12]
        place = data.rfind(b'"made": ')
        if place >= 0:
            self.one.first = self.one.first or now
            stamp = data[place + 8 : place + 28].split(b",")[0]
            if stamp.isdigit() and data.find(b",", place) > 0:
                self.one.late_chunks.append(now - int(stamp) / 1e9)
        self.tail = (self.tail + data)[-600:]
        if self.status == b"200" and b"data: [DONE]" in self.tail:
            self._end("")

    def connection_lost(self, error: Exception | None) -> None:
        text = self.tail.decode(errors="replace")
        self._end("not whole" if self.status == b"200" else f"{self.status.decode() or 'no answer'} {text[-200:]}")

    def _end(self, error: str) -> None:
        if not self.done.done():
            self.done.set_result(error)
