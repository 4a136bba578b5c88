"""A connection to a simulated replica: what of HTTP balancers and clients use, and the answers of vLLM and the supervisor."""

from __future__ import annotations

import asyncio
import json
import re
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qualification.fleet.simulated import Replica

REQUEST = re.compile(r"request=(\d+) sent=(\d+)")
OK, UNAVAILABLE = b"200 OK", b"503 Service Unavailable"


@dataclass(eq=False)
class Request:
    """A streamed chat completion, to be written to `door`."""

    door: Door
    tokens: int
    made: int = 0
    gone: bool = False


class Door(asyncio.Protocol):
    """One connection to a replica; requests on it come one after the other."""

    transport: asyncio.Transport

    def __init__(self, replica: Replica, health: bool) -> None:
        self.replica, self.health = replica, health
        self.read = bytearray()
        self.request: Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.replica.doors.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.replica.doors.discard(self)
        if self.request is not None:
            self.request.gone = True

    def data_received(self, data: bytes) -> None:
        self.read += data
        end = self.read.find(b"\r\n\r\n")
        if end < 0 or self.replica.frozen:
            return
        head = bytes(self.read[:end])
        found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        whole = end + 4 + (int(found[1]) if found else 0)
        if len(self.read) >= whole:
            body = bytes(self.read[end + 4 : whole])
            del self.read[:whole]
            self.answer(head.split(b" ", 2)[1].decode(), body)

    def answer(self, path: str, body: bytes) -> None:
        replica = self.replica
        if path in ("/readyz", "/health"):
            replica.log.checks.append((time.monotonic(), replica.number))
            well = replica.ready if path == "/readyz" else True
            self.say(OK if well else UNAVAILABLE, b"")
        elif path == "/v1/models":
            self.say(OK, json.dumps({"object": "list", "data": [{"id": "simulated", "object": "model"}]}).encode())
        elif path == "/v1/chat/completions/render" and not self.health:
            self.render(body)
        elif self.health or path != "/v1/chat/completions":
            self.say(b"404 Not Found", b"{}")
        elif replica.refusing:
            self.say(UNAVAILABLE, b'{"error": {"message": "shutting down", "code": 503}}')
        else:
            self.complete(body)

    def render(self, body: bytes) -> None:
        """Tell the token ids of a prompt, as vLLM does for routers that look for prefixes."""
        self.replica.log.renders.append((time.monotonic(), self.replica.number))
        words = json.loads(body)["messages"][0]["content"].split()
        tokens = [zlib.crc32(word.encode()) % 129_280 for word in words]
        answer = {"request_id": "1", "model": "simulated", "token_ids": tokens, "sampling_params": {}, "stream": True}
        self.say(OK, json.dumps(answer).encode())

    def complete(self, body: bytes) -> None:
        parsed = json.loads(body)
        found = REQUEST.search(parsed["messages"][0]["content"])
        assert found
        now, sent = time.monotonic(), int(found[2]) / 1e9
        self.replica.log.arrivals.append((int(found[1]), now, self.replica.number, now - sent))
        self.request = Request(self, parsed["max_tokens"])
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.replica.submit(self.request)

    def token(self, stamp: int, *, last: bool) -> None:
        """Write a chunk of the stream; `stamp` says when it was made."""
        if self.transport.is_closing():
            return
        text = f'data: {{"object": "chat.completion.chunk", "made": {stamp}, "choices": [{{"index": 0, "delta": {{"content": " word"}}}}]}}\n\n'
        if last:
            text += "data: [DONE]\n\n"
            self.request = None
        end = "0\r\n\r\n" if last else ""
        self.transport.write(f"{len(text):x}\r\n{text}\r\n{end}".encode())

    def say(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)
