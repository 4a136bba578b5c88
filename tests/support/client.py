"""Calls of vLLM's client from tests that are not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dsv4_serve.entrypoint.client.vllm import VllmClient

T = TypeVar("T")


def with_client(url: str, use: Callable[[VllmClient], Awaitable[T]], key: str = "") -> T:
    """Return what `use` returns for a client of this server, which is closed afterwards."""

    async def call() -> T:
        client = VllmClient(url, key)
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(call())
