"""A pod's readiness as Kubernetes reports it: polls `/readyz` as the probe of deploy/kubernetes/base does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PERIOD, TIMEOUT, FAILURES = 2.0, 5.0, 2
"""`periodSeconds`, `timeoutSeconds` and `failureThreshold` of the readiness probe."""


async def ready(address: str, port: int) -> bool:
    """Tell whether a replica says so."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: kubelet\r\nConnection: close\r\n\r\n")
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def watch(address: str, port: int, remove: Callable[[str], None], add: Callable[[str], None]) -> None:
    """Ask one replica for ever; say when it is no longer ready, and when it is again."""
    listed, failures = True, 0
    while True:
        await asyncio.sleep(PERIOD)
        failures = 0 if await ready(address, port) else failures + 1
        if listed and failures >= FAILURES:
            listed = False
            await asyncio.to_thread(remove, address)
        elif not listed and not failures:
            listed = True
            await asyncio.to_thread(add, address)


@contextmanager
def kubelet(
    addresses: list[str], port: int, remove: Callable[[str], None], add: Callable[[str], None]
) -> Iterator[None]:
    """Watch replicas during the block, each in its own turn of the period."""
    loop = asyncio.new_event_loop()

    async def every() -> None:
        async def one(number: int, address: str) -> None:
            await asyncio.sleep(PERIOD * number / len(addresses))
            await watch(address, port, remove, add)

        await asyncio.gather(*(one(number, address) for number, address in enumerate(addresses)))

    task = loop.create_task(every())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])), daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
