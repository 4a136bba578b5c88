"""vLLM's OpenAI server as its users ask it: chats, streams of server-sent events, completions."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...healthcheck.engine import POLL_SECONDS, Engine, Refused, Unreachable

if TYPE_CHECKING:
    import httpx

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


class Refusal(Refused):
    """The server answered with an error; `message` is its own sentence."""

    def __init__(self, path: str, status: int, message: str) -> None:
        super().__init__(f"{path}: HTTP {status}: {message}")
        self.message = message


@dataclass(frozen=True)
class Reply:
    """One answer. Token counts are the server's own (`usage`); `reasoning` is what vLLM's parser took out of it."""

    content: str
    reasoning: str
    finish: str
    prompt_tokens: int
    tokens: int
    total_tokens: int
    tool_calls: Sequence[Mapping[str, Any]] = ()
    stop: str = ""
    """The stop string that ended it."""


@dataclass(frozen=True)
class Stream:
    """
    One answer as it came in: its pieces in order, how often a reason to finish was given, and what came last.

    `pieces` are pairs of "reasoning" or "content" and a text. `seconds` run to the first piece.
    """

    pieces: Sequence[tuple[str, str]]
    finish: Sequence[str]
    tokens: int | None
    """Of the usage chunk after the last piece; None without one."""
    done: bool
    seconds: float

    def text(self, kind: str) -> str:
        """Return everything of one kind."""
        return "".join(text for of, text in self.pieces if of == kind)

    def whole(self) -> Reply:
        """Return it as one answer; a stream does not tell the prompt's tokens."""
        finish = self.finish[-1] if self.finish else "none"
        return Reply(self.text("content"), self.text("reasoning"), finish, 0, self.tokens or 0, 0)


class Server(Engine):
    """One server at any address: unlike the health server's own engine, its certificate is checked. Close it."""

    def __init__(self, url: str, key: str | None, model: str) -> None:
        import httpx

        self.url = url
        self._model = model
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            trust_env=False,  # a proxy is not asked for it
            timeout=POLL_SECONDS,
            limits=httpx.Limits(max_connections=None),
        )

    async def chat(self, question: str | Sequence[Mapping[str, Any]], tokens: int, **more: Any) -> Reply:
        """Return the greedy answer to a question, or to messages. Raise Unreachable or Refused."""
        body = _body(await self._ask("POST", CHAT, self._chat(question, tokens, more)), CHAT)
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
            )
        except (LookupError, TypeError, ValueError, AttributeError):
            raise Refused(f"{CHAT}: an answer without choice, message or usage") from None

    async def completion(self, prompt: str, tokens: int, **more: Any) -> Reply:
        """Return the greedy continuation of a text. Raise Unreachable or Refused."""
        asked = {"model": self._model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "seed": 0, **more}
        body = _body(await self._ask("POST", COMPLETIONS, asked), COMPLETIONS)
        try:
            choice, usage = body["choices"][0], body["usage"]
            return Reply(
                content=str(choice["text"]),
                reasoning="",
                finish=str(choice["finish_reason"]),
                prompt_tokens=int(usage["prompt_tokens"]),
                tokens=int(usage["completion_tokens"]),
                total_tokens=int(usage["total_tokens"]),
                stop=choice.get("stop_reason") or "",
            )
        except (LookupError, TypeError, ValueError, AttributeError):
            raise Refused(f"{COMPLETIONS}: an answer without choice or usage") from None

    async def stream(self, question: str, tokens: int, **more: Any) -> Stream:
        """Return the greedy answer to a question as its stream brought it. Raise Unreachable or Refused."""
        import httpx

        asked = self._chat(question, tokens, {"stream": True, "stream_options": {"include_usage": True}, **more})
        pieces: list[tuple[str, str]] = []
        finish: list[str] = []
        usage, done, first, began = None, False, 0.0, time.monotonic()
        try:
            async with self._http.stream("POST", CHAT, json=asked, timeout=None) as answer:
                if answer.is_error:
                    await answer.aread()
                    _body(answer, CHAT)
                async for line in answer.aiter_lines():
                    data = line.removeprefix("data:").strip()
                    if not line.startswith("data:"):
                        continue
                    if data == "[DONE]":
                        done = True
                        continue
                    chunk = _event(data)
                    usage = None  # what counts is the usage after the last piece
                    for choice in chunk.get("choices") or ():
                        delta = choice.get("delta") or {}
                        pieces += [(of, delta[of]) for of in ("reasoning", "content") if delta.get(of)]
                        finish += [choice["finish_reason"]] if choice.get("finish_reason") else []
                    if not chunk.get("choices"):
                        usage = (chunk.get("usage") or {}).get("completion_tokens")
                    first = first or (time.monotonic() - began if pieces else 0.0)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.url}{CHAT}: the stream broke ({str(error) or type(error).__name__})") from None
        return Stream(pieces, finish, usage, done, first)

    def _chat(self, question: Any, tokens: int, more: Mapping[str, Any]) -> dict[str, Any]:
        messages = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
        return {
            "model": self._model,
            "messages": messages,
            "max_tokens": tokens,
            "temperature": 0,
            "seed": 0,
            **more,
        }


def _body(answer: httpx.Response, path: str) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.is_error:
        error = body.get("error", body) if isinstance(body, dict) else {}
        message = error.get("message") if isinstance(error, dict) else None
        raise Refusal(path, answer.status_code, str(message or "no reason given"))
    if not isinstance(body, dict):
        raise Refused(f"{path}: the answer is no JSON object")
    return body


def _event(data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise Refused(f"{CHAT}: a chunk of the stream is no JSON object")
    if "error" in chunk:
        raise Refused(f"{CHAT}: the stream ended with an error: {chunk['error']}")
    return chunk
