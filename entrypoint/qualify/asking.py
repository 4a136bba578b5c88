"""Ask a replica from a thread with an event loop of its own, so that a signal or the end of the time interrupts it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import secrets
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from ..client.answers import Completion
from ..client.counters import Counters
from ..client.endpoint import Endpoint
from ..client.vllm import VllmClient
from ..errors import UserError
from .known import Question

T = TypeVar("T")
CLOSING = 5.0  # seconds


class OutOfTime(UserError):
    """The time of --minutes was used up; what had begun was not finished."""


class Asker:
    """Asks one replica; every method returns, or raises OutOfTime after `seconds`."""

    def __init__(self, client: VllmClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._loop = client, loop

    def one(self, question: Question, seconds: float) -> Completion:
        """Return the answer to one question, past the prefix cache."""
        return self._wait(self._complete(question), seconds)

    def at_once(self, questions: Sequence[Question], seconds: float) -> list[Completion]:
        """Return the answers to questions that are sent at the same time."""

        async def together() -> list[Completion]:
            return list(await asyncio.gather(*map(self._complete, questions)))

        return self._wait(together(), seconds)

    def raw(self, body: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer to a request of completions as vLLM gives it."""
        return self.raws([body], seconds)[0]

    def raws(self, bodies: Sequence[Mapping[str, Any]], seconds: float) -> list[dict[str, Any]]:
        """Return the answers to requests that are sent at the same time."""

        async def together() -> list[dict[str, Any]]:
            return list(await asyncio.gather(*map(self._client.completion, bodies)))

        return self._wait(together(), seconds)

    def begin(self, question: Question) -> concurrent.futures.Future[Completion]:
        """Send a question and do not wait."""
        return asyncio.run_coroutine_threadsafe(self._complete(question), self._loop)

    def counters(self, seconds: float) -> Counters:
        """Return vLLM's counters, once they stand still."""
        return self._wait(self._client.settled_counters(), seconds)

    def now(self, seconds: float) -> Counters:
        """Return vLLM's counters while requests run."""
        return self._wait(self._client.counters(), seconds)

    async def _complete(self, question: Question) -> Completion:
        salt = secrets.token_hex(8)
        return await self._client.complete(list(question.prompt), len(question.answer), logprobs=True, salt=salt)

    def _wait(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(max(seconds, 0.0))
        except concurrent.futures.TimeoutError:
            raise OutOfTime("an answer did not arrive in the time left") from None
        finally:
            future.cancel()


@contextmanager
def asking(endpoint: Endpoint) -> Iterator[Asker]:
    """Yield what asks a replica."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    client = VllmClient(endpoint.url, endpoint.key)
    try:
        yield Asker(client, loop)
    finally:
        closing = asyncio.run_coroutine_threadsafe(_close(client), loop)
        concurrent.futures.wait([closing], CLOSING)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSING)


async def _close(client: VllmClient) -> None:
    """Cancel what still runs, and close the connections."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await client.close()
