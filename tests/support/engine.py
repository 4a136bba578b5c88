"""
A stand-in for vLLM behind a balancer: tests/support/stand_in.py on a loopback address of its own.

It says who answered (header `x-replica`), and at /seen what reached it: requests, bytes of bodies, clients that hung up.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvicorn

from tests.support import stand_in

HOST = sys.argv[sys.argv.index("--host") + 1]
seen = {"requests": 0, "bytes": 0, "most_bytes": 0, "hung_up": 0}


async def app(scope: dict, receive, send) -> None:
    if scope["path"] == "/seen":
        await stand_in.answer(send, json.dumps(seen).encode())
    elif scope["path"] in ("/health", "/metrics"):
        await stand_in.app(scope, receive, send)
    else:
        await generate(scope, receive, send)


async def generate(scope: dict, receive, send) -> None:
    body = await read(receive)
    seen["requests"] += 1
    seen["bytes"] += len(body)
    seen["most_bytes"] = max(seen["most_bytes"], len(body))
    work = asyncio.create_task(stand_in.app(scope, once(body), named(send)))
    hangs_up = asyncio.create_task(receive())
    await asyncio.wait({work, hangs_up}, return_when=asyncio.FIRST_COMPLETED)
    hangs_up.cancel()
    if work.done():
        await work
    else:
        seen["hung_up"] += 1
        work.cancel()


async def read(receive) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def once(body: bytes):
    async def receive() -> dict:
        return {"type": "http.request", "body": body}

    return receive


def named(send):
    async def sending(message: dict) -> None:
        if message["type"] == "http.response.start":
            message["headers"].append((b"x-replica", HOST.encode()))
        await send(message)

    return sending


if __name__ == "__main__":
    stand_in.log("non-default args: {}")
    config = uvicorn.Config(
        stand_in.guarded(app), host=HOST, port=stand_in.PORT, log_level="error", lifespan="off", backlog=2048
    )
    stand_in.Server(config).run()
