"""The answers of vLLM, as this client returns them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOT_A_NUMBER = "its log-probabilities are not numbers (NaN logits)"
_MINUS_INFINITY = -9999.0
"""What vLLM answers for a logprob of minus infinity (`entrypoints/openai/completion/serving.py` of 0.32.0)."""


@dataclass(frozen=True)
class Completion:
    """
    One greedy continuation: its text, its token ids, and their log-probabilities if requested.

    `broken` says what is wrong with the numbers; the text and tokens may then be missing.
    `stop` is the stop string that ended it. `prompt_tokens` is the server's own count, 0 if it gives none.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    broken: str = ""
    finish: str = ""
    stop: str = ""
    prompt_tokens: int = 0


@dataclass(frozen=True)
class Reply:
    """
    One answer in a chat. Token counts are the server's own; `reasoning` is what vLLM's parser extracted.

    `prompt_ids` and `ids` are the token ids of prompt and answer, where the request sets `return_token_ids`.
    """

    content: str
    reasoning: str
    finish: str
    prompt_tokens: int
    tokens: int
    total_tokens: int
    tool_calls: Sequence[Mapping[str, Any]] = ()
    prompt_ids: Sequence[int] = ()
    ids: Sequence[int] = ()


@dataclass(frozen=True)
class CallDelta:
    """
    One delta of a tool call in a stream, as it came; empty where the delta says nothing.

    `at` are seconds since the request; `tokens` are those generated so far, None where the chunk does not say.
    """

    index: int
    id: str
    name: str
    arguments: str
    at: float
    tokens: int | None


@dataclass(frozen=True)
class Stream:
    """
    One streamed answer in a chat: its pieces in order, every finish reason, and the usage at the end.

    `pieces` are pairs of "reasoning" or "content" and a text. `seconds` run to the first piece.
    """

    pieces: Sequence[tuple[str, str]]
    finish: Sequence[str]
    tokens: int | None
    """From the usage chunk after the last piece; None without one."""
    done: bool
    seconds: float
    deltas: Sequence[CallDelta] = ()
    """Of tool calls, in order."""

    def calls(self) -> list[dict[str, Any]]:
        """Return the tool calls that a client puts together, by index, in the form of an answer that did not stream."""
        whole: dict[int, dict[str, Any]] = {}
        for delta in self.deltas:
            call = whole.setdefault(delta.index, {"id": "", "function": {"name": "", "arguments": ""}})
            call["id"] += delta.id
            call["function"]["name"] += delta.name
            call["function"]["arguments"] += delta.arguments
        return [whole[index] for index in sorted(whole)]

    def text(self, kind: str) -> str:
        """Return the whole text of one kind."""
        return "".join(text for of, text in self.pieces if of == kind)

    def whole(self) -> Reply:
        """Return it as one answer; a stream has no count of the prompt's tokens."""
        finish = self.finish[-1] if self.finish else "none"
        return Reply(self.text("content"), self.text("reasoning"), finish, 0, self.tokens or 0, 0, self.calls())


def broken(logprobs: Sequence[float]) -> str:
    """Return what is wrong with log-probabilities of greedy tokens, which have to be finite; else nothing."""
    if any(math.isnan(number) for number in logprobs):
        return NOT_A_NUMBER
    if any(math.isinf(number) or number <= _MINUS_INFINITY for number in logprobs):
        return "its log-probabilities are infinite"
    return ""
