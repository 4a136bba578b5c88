"""
The client of vLLM's API: health, models, counters, completions, chats and streams.

There are two exceptions, Unreachable and Refused. An engine that computes NaN raises neither: the answer is marked
(`Completion.broken`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import plain_file
from . import counters, http
from .answers import NOT_A_NUMBER, CallDelta, Completion, Reply, Stream, broken
from .counters import Counters
from .endpoint import MODELS, NOT_VLLM, ServedModels
from .errors import Refused, Unreachable

if TYPE_CHECKING:
    import httpx
    from httpx_sse import ServerSentEvent

ANSWER_SECONDS = 1200.0
"""For a completion, as the first one may compile kernels; callers set their own limits."""
SETTLE_SECONDS = 0.05
SETTLE_READS = 40
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
DETOKENIZE = "/detokenize"

_NAN_ERROR = "Out of range float values"
"""The beginning of vLLM's error 400, from Python's JSON encoder, for a NaN or infinite logprob."""


class VllmClient:
    """
    One vLLM server: `url` without a trailing slash, and its bearer key. Close it when done.

    `model` is the name to request; empty is the first served one. `verify` is off for our own child on this
    host, whose certificate names another host.
    """

    def __init__(self, url: str, key: str | None = None, model: str = "", *, verify: bool = True) -> None:
        import httpx

        self.url = url
        self._model = model
        # no limit of connections, as concurrent requests must not queue here; httpx and uvicorn both keep an idle one
        # for 5 s, and a request on one that the server is just closing fails
        limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
        settings: dict[str, Any] = http.settings(key, url) | ({} if verify else {"verify": False})
        self._http = httpx.AsyncClient(base_url=url, limits=limits, **settings)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Tell whether the server reports itself as healthy."""
        try:
            return (await self._send("GET", "/health")).is_success
        except Unreachable:
            return False

    async def models(self) -> list[str]:
        """Return the served names, the model's own first. Raise Unreachable or Refused."""
        answer = http.accepted(await self._send("GET", MODELS), MODELS)
        return [model.id for model in http.parsed(ServedModels, answer, NOT_VLLM).data]

    async def metrics(self) -> str:
        """Return the Prometheus text. Raise Unreachable or Refused."""
        return http.accepted(await self._send("GET", "/metrics"), "/metrics").text

    async def counters(self) -> Counters:
        """Return one reading of the counters. Raise Unreachable, also for an answer that cannot be read, or Refused."""
        try:
            return counters.read(await self.metrics())
        except ValueError as error:
            raise Unreachable(f"{self.url}/metrics: cannot be read ({error})") from None

    async def settled_counters(self) -> Counters:
        """
        Return the counters once two readings in a row agree: after the last answer a step may still be running.

        Under constant traffic, the last of SETTLE_READS readings is returned. Raise Unreachable or Refused.
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
        self,
        prompt: str | list[int],
        tokens: int,
        *,
        logprobs: bool = False,
        to_the_end: bool = False,
        salt: str = "",
        **more: Any,
    ) -> Completion:
        """
        Return exactly `tokens` greedy tokens after `prompt`, a text or token ids; fewer where the model may end its
        answer (`to_the_end`).

        With a unique `salt`, a prompt is not found in the prefix cache; `more` is added to the request.
        Raise Unreachable or Refused.
        """
        body = {
            **await self._greedy(tokens),
            "prompt": prompt,
            "ignore_eos": not to_the_end,
            "return_token_ids": True,
            **({"logprobs": 0} if logprobs else {}),  # of the chosen tokens only
            **({"cache_salt": salt} if salt else {}),
            **more,
        }
        answer = await self._send("POST", COMPLETIONS, body)
        if answer.is_error and _NAN_ERROR in answer.text:
            return Completion("", (), broken=NOT_A_NUMBER)
        body = _object(http.accepted(answer, COMPLETIONS), COMPLETIONS)
        try:
            choice = body["choices"][0]
            given = (choice.get("logprobs") or {}).get("token_logprobs") or ()
            numbers = tuple(math.nan if number is None else float(number) for number in given)
            return Completion(
                text=str(choice["text"]),
                tokens=tuple(choice["token_ids"]),
                logprobs=numbers,
                broken=broken(numbers),
                finish=str(choice.get("finish_reason")),
                stop=choice.get("stop_reason") or "",
                prompt_tokens=int((body.get("usage") or {}).get("prompt_tokens", 0)),
            )
        except (LookupError, TypeError, ValueError, AttributeError):
            raise Refused(f"{COMPLETIONS}: the answer has no choice") from None

    async def completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a greedy completion as vLLM gives it. Raise Unreachable or Refused."""
        request = {**await self._greedy(1), **body}
        return _object(http.accepted(await self._send("POST", COMPLETIONS, request), COMPLETIONS), COMPLETIONS)

    async def chat(self, question: str | Sequence[Mapping[str, Any]], tokens: int, **more: Any) -> Reply:
        """Return the greedy answer to a question, or to messages. Raise Unreachable or Refused."""
        request = {**await self._greedy(tokens), "messages": _messages(question), **more}
        answer = await self._send("POST", CHAT, request)
        body = _object(http.accepted(answer, CHAT), CHAT)
        try:
            choice, usage = body["choices"][0], body["usage"]
            message = choice["message"]
            return Reply(
                content=message.get("content") or "",
                reasoning=message.get("reasoning") or "",
                finish=str(choice["finish_reason"]),
                prompt_tokens=int(usage["prompt_tokens"]),
                tokens=int(usage["completion_tokens"]),
                tool_calls=message.get("tool_calls") or (),
                total_tokens=int(usage["total_tokens"]),
                prompt_ids=body.get("prompt_token_ids") or (),
                ids=choice.get("token_ids") or (),
            )
        except (LookupError, TypeError, ValueError, AttributeError):
            raise Refused(f"{CHAT}: the answer lacks a choice, message or usage") from None

    async def stream(self, question: str | Sequence[Mapping[str, Any]], tokens: int, **more: Any) -> Stream:
        """Return the greedy answer to a question, or to messages, as a stream. Raise Unreachable or Refused."""
        import httpx
        from httpx_sse import aconnect_sse

        body = {
            **await self._greedy(tokens),
            "messages": _messages(question),
            "stream": True,
            "stream_options": {"include_usage": True},
            **more,
        }
        pieces: list[tuple[str, str]] = []
        deltas: list[CallDelta] = []
        finish: list[str] = []
        usage, done, first, began = None, False, 0.0, time.monotonic()
        try:
            async with aconnect_sse(self._http, "POST", CHAT, json=body, timeout=None) as events:
                if not events.response.is_success:
                    await events.response.aread()
                    http.accepted(events.response, CHAT)
                async for event in events.aiter_sse():
                    if event.data == "[DONE]":
                        done = True
                        continue
                    chunk = _chunk(event)
                    choices = chunk.get("choices") or ()
                    for choice in choices:
                        delta = choice.get("delta") or {}
                        pieces += [(kind, delta[kind]) for kind in ("reasoning", "content") if delta.get(kind)]
                        finish += [choice["finish_reason"]] if choice.get("finish_reason") else []
                        deltas += _call_deltas(delta, time.monotonic() - began, _counted(chunk))
                    # what counts is the usage after the last piece
                    usage = None if choices else _counted(chunk)
                    first = first or (time.monotonic() - began if pieces else 0.0)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.url}{CHAT}: the stream broke ({http.cause(error)})") from None
        return Stream(pieces, finish, usage, done, first, deltas)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids. Raise Unreachable or Refused."""
        body = {"model": (await self._greedy(1))["model"], "tokens": list(ids)}
        answer = http.accepted(await self._send("POST", DETOKENIZE, body), DETOKENIZE)
        return str(_object(answer, DETOKENIZE).get("prompt", ""))

    async def _greedy(self, tokens: int) -> dict[str, Any]:
        self._model = self._model or (await self.models())[0]
        return {"model": self._model, "max_tokens": tokens, "temperature": 0, "seed": 0}

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        import httpx

        seconds = httpx.Timeout(http.SECONDS if body is None else ANSWER_SECONDS, connect=http.SECONDS)
        try:
            return await self._http.request(method, path, json=body, timeout=seconds)
        except httpx.HTTPError as error:
            raise http.unreachable(f"{self.url}{path}", error) from None


def _object(answer: httpx.Response, path: str) -> dict[str, Any]:
    try:
        body = plain_file.parse_json(answer.content)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Unreachable(f"{path}: {NOT_VLLM} (no JSON object)")
    return body


def _messages(question: str | Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [{"role": "user", "content": question}] if isinstance(question, str) else list(question)


def _counted(chunk: Mapping[str, Any]) -> int | None:
    """Return the output tokens that a chunk of a stream counts."""
    return (chunk.get("usage") or {}).get("completion_tokens")


def _call_deltas(delta: Mapping[str, Any], at: float, tokens: int | None) -> list[CallDelta]:
    """Return the tool-call deltas of one choice; raise Refused where one has no index."""
    try:
        return [
            CallDelta(
                index=int(call["index"]),
                id=call.get("id") or "",
                name=(call.get("function") or {}).get("name") or "",
                arguments=(call.get("function") or {}).get("arguments") or "",
                at=at,
                tokens=tokens,
            )
            for call in delta.get("tool_calls") or ()
        ]
    except (LookupError, TypeError, ValueError):
        raise Refused(f"{CHAT}: a tool call in the stream has no index") from None


def _chunk(event: ServerSentEvent) -> dict[str, Any]:
    try:
        chunk = plain_file.parse_json(event.data.encode())
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise Refused(f"{CHAT}: a chunk of the stream is not a JSON object")
    if "error" in chunk:
        raise Refused(f"{CHAT}: the stream ended with an error: {chunk['error']}")
    return chunk
