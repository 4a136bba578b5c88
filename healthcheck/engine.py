"""
A client of one vLLM server, ours and on this host.

What can go wrong has three names: nobody answers (Unreachable), the answer is an error (Refused), or the engine
computed something that is no number, which is an answer with a sign on it (`Completion.broken`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import counters
from .counters import Counters

if TYPE_CHECKING:
    import httpx

POLL_SECONDS = 10.0
"""For vLLM to answer a look at its health, models or counters, which its event loop does between two requests."""
ANSWER_SECONDS = 1200.0
"""For a completion: the first one may compile kernels. What is allowed for it is the caller's business."""
SETTLE_SECONDS = 0.05
SETTLE_READS = 40

_NOT_A_NUMBER = "Out of range float values"
"""How Python's JSON writer, and so vLLM's error 400, begins the complaint about a NaN or infinite logprob."""
_MINUS_INFINITY = -9999.0
"""What vLLM answers for a logprob of minus infinity (`entrypoints/openai/completion/serving.py` of 0.32.0)."""


class Unreachable(Exception):
    """The server did not answer, or something else answered in its place."""


class Refused(Exception):
    """The server answered with an error; the text says which, and what it was asked for."""


@dataclass(frozen=True)
class Completion:
    """
    One greedy answer: its text, its token ids, and the log-probability of each of them where it was asked for.

    `broken` says what is wrong with the numbers; a completion without numbers may have neither text nor tokens then.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    broken: str = ""


class Engine:
    """One vLLM server: `url` without a trailing slash, and its bearer key. Close it when done."""

    def __init__(self, url: str, key: str = "") -> None:
        import httpx

        self.url = url
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            verify=False,  # noqa: S501 - our own child on this host, whose certificate names another host
            trust_env=False,  # a proxy is not asked for it
            timeout=POLL_SECONDS,
            limits=httpx.Limits(max_connections=None),  # a canary in company does not queue here
        )
        self._model = ""

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Tell whether the server says that it is up."""
        try:
            return (await self._ask("GET", "/health")).is_success
        except Unreachable:
            return False

    async def models(self) -> list[str]:
        """Return the names that the server answers to, the model's own first. Raise Unreachable or Refused."""
        return [str(model["id"]) for model in _field(await self._answer("GET", "/v1/models"), "data")]

    async def metrics(self) -> str:
        """Return the Prometheus text. Raise Unreachable or Refused."""
        return (await self._answer("GET", "/metrics")).text

    async def counters(self) -> Counters:
        """Return one reading of the counters. Raise Unreachable, also for an answer that cannot be read, or Refused."""
        try:
            return counters.read(await self.metrics())
        except ValueError as error:
            raise Unreachable(f"{self.url}/metrics: cannot be read ({error})") from None

    async def settled_counters(self) -> Counters:
        """
        Return the counters once two readings in a row agree: a step may still be on its way after the last answer.

        With traffic that never rests, the last of SETTLE_READS readings is returned. Raise Unreachable or Refused.
        """
        last = await self.counters()
        for _ in range(SETTLE_READS - 1):
            await asyncio.sleep(SETTLE_SECONDS)
            now = await self.counters()
            if now == last and not now.running:
                break
            last = now
        return last

    async def complete(
        self, prompt: str | list[int], tokens: int, *, logprobs: bool = False, to_the_end: bool = False, salt: str = ""
    ) -> Completion:
        """
        Return exactly `tokens` greedy tokens after `prompt`, a text or token ids; fewer where the model may end its
        answer (`to_the_end`).

        The first served name is asked for. A `salt` of its own keeps a request from finding its prompt in the prefix
        cache. Raise Unreachable or Refused.
        """
        if not self._model:
            self._model = next(iter(await self.models()), "")
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "seed": 0,
            "ignore_eos": not to_the_end,
            "return_token_ids": True,
            **({"logprobs": 0} if logprobs else {}),  # of the chosen tokens only
            **({"cache_salt": salt} if salt else {}),
        }
        answer = await self._ask("POST", "/v1/completions", body)
        if answer.is_error and _NOT_A_NUMBER in answer.text:
            return Completion("", (), broken="its log-probabilities are no numbers (NaN logits)")
        choices = _field(_accepted(answer, "/v1/completions"), "choices")
        if not choices:
            raise Refused("/v1/completions: an answer without a choice")
        said: Sequence[Any] = (choices[0].get("logprobs") or {}).get("token_logprobs") or ()
        numbers = tuple(math.nan if number is None else float(number) for number in said)
        return Completion(str(choices[0]["text"]), tuple(choices[0]["token_ids"]), numbers, _broken(numbers))

    async def _answer(self, method: str, path: str) -> httpx.Response:
        return _accepted(await self._ask(method, path), path)

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        import httpx

        patience = httpx.Timeout(POLL_SECONDS if body is None else ANSWER_SECONDS, connect=POLL_SECONDS)
        try:
            return await self._http.request(method, path, json=body, timeout=patience)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.url}{path}: {str(error) or type(error).__name__}") from None


def _accepted(answer: httpx.Response, path: str) -> httpx.Response:
    if not answer.is_success:
        raise Refused(f"{path}: HTTP {answer.status_code}")
    return answer


def _field(answer: httpx.Response, name: str) -> list[dict[str, Any]]:
    try:
        return list(answer.json()[name])
    except (ValueError, LookupError, TypeError):
        raise Unreachable(f"{answer.url}: not an answer of vLLM's (no {name!r} in it)") from None


def _broken(logprobs: Sequence[float]) -> str:
    """Say what is wrong with log-probabilities of greedy tokens, which are finite, and not below that of even odds."""
    if any(math.isnan(number) for number in logprobs):
        return "its log-probabilities are no numbers (NaN logits)"
    if any(math.isinf(number) or number <= _MINUS_INFINITY for number in logprobs):
        return "its log-probabilities are infinite"
    return ""
