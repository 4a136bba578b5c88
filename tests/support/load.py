"""Steady load on a balancer, and what became of each request."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.support.balancer import KEY
from tests.support.patience import slowness


@dataclass(frozen=True)
class Outcome:
    """One streamed completion; `error` is empty when it was whole."""

    began: float
    ended: float
    replica: str
    error: str


@dataclass
class Load:
    """Streams that run one after the other in several clients."""

    outcomes: list[Outcome] = field(default_factory=list)
    stopping: bool = False

    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.error]


async def stream(client: httpx.AsyncClient, tokens: int, session: str = "") -> Outcome:
    began, replica, error, done = time.monotonic(), "", "", False
    headers = {"X-Session-ID": session} if session else {}
    body = {"prompt": "Once", "max_tokens": tokens, "stream": True}
    try:
        async with client.stream("POST", "/v1/completions", json=body, headers=headers) as answer:
            replica = answer.headers.get("x-replica", "")
            if answer.status_code != 200:
                error = f"{answer.status_code} {(await answer.aread()).decode()}"
            async for line in answer.aiter_lines():
                done = done or line == "data: [DONE]"
    except httpx.HTTPError as problem:
        error = f"{type(problem).__name__} {problem}"
    return Outcome(began, time.monotonic(), replica, error or ("" if done else "not whole"))


def slow(port: int, tokens: int, pause: float = 0.7) -> bytes:
    """Ask for a stream with a body that comes in pieces of 100 bytes, read the answer 64 bytes at a time; return it all."""
    prompt = "Once upon a time " * 24
    body = json.dumps({"prompt": prompt, "max_tokens": tokens, "stream": True, "user": "slow"}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60 * slowness()) as connection:
        connection.sendall(head.encode())
        for start in range(0, len(body), 100):
            connection.sendall(body[start : start + 100])
            time.sleep(pause)
        answer = b""
        while part := connection.recv(64):
            answer += part
            time.sleep(0.005)
    return answer


def client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=120.0 * slowness(),
        trust_env=False,
        limits=httpx.Limits(max_connections=None),
    )


async def at_once(url: str, count: int, tokens: int, session: str = "") -> list[Outcome]:
    async with client(url) as asking:
        return await asyncio.gather(*(stream(asking, tokens, session) for _ in range(count)))


@contextmanager
def load(url: str, clients: int = 8, tokens: int = 20) -> Iterator[Load]:
    """Keep `clients` busy during the block, every second one with a session; they finish what runs."""
    made = Load()

    async def one(number: int) -> None:
        async with client(url) as asking:
            while not made.stopping:
                made.outcomes.append(await stream(asking, tokens, f"session {number}" if number % 2 else ""))

    async def every() -> None:
        await asyncio.gather(*(one(number) for number in range(clients)))

    thread = threading.Thread(target=lambda: asyncio.run(every()), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stopping = True
        thread.join(130 * slowness())
