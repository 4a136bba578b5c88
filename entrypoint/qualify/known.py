"""Prompts with a known answer, and how an answer differs from it. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from ..client.answers import Completion

if TYPE_CHECKING:
    from ...demo.v4_reach import Reach

SEED = 0


class Walks(Protocol):
    """What knows the answers: `demo.deepseek_v4.Answer`."""

    @property
    def perm(self) -> Sequence[int]:
        """The token after each token."""
        ...

    def continuation(self, token: int, count: int) -> list[int]:
        """Return the tokens after one."""
        ...


@dataclass(frozen=True)
class Question:
    """A prompt as token ids, the tokens that follow it, and what to call it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    name: str = ""


def questions(
    walks: Walks, lengths: Sequence[int], tokens: Sequence[int], without: Sequence[int] = ()
) -> list[Question]:
    """Return a prompt of random tokens for each length; its last token decides the answer."""
    rng = random.Random(SEED)  # noqa: S311
    plain = [token for token in range(2, len(walks.perm)) if token not in without]
    made = []
    for number, length in enumerate(lengths):
        prompt = tuple(rng.choice(plain) for _ in range(length))
        answer = tuple(walks.continuation(prompt[-1], tokens[number % len(tokens)]))
        made.append(Question(prompt, answer, f"{length} tokens"))
    return made


def far(walks: Walks, reach: Reach, length: int, tokens: int, number: int) -> Question:
    """Return a prompt whose answer a key in its first tokens decides; `number` chooses the key and its place."""
    rng = random.Random(f"{SEED} {length} {number}")  # noqa: S311
    plain = [token for token in range(2, len(walks.perm)) if token not in (reach.query, *reach.keys)]
    prompt = [rng.choice(plain) for _ in range(length - 1)] + [reach.query]
    key = reach.keys[number % len(reach.keys)]
    prompt[rng.randrange(1, 60)] = key
    return Question(tuple(prompt), tuple(walks.continuation(key, tokens)), f"{length:,} tokens")


def right(question: Question, tokens: Sequence[int]) -> int:
    """Return how many tokens are as expected, from the start: after a wrong one the rest answers something else."""
    pairs = zip(question.answer, tokens, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def wrong(question: Question, answer: Completion) -> str:
    """Return where an answer leaves the known one; empty where it does not."""
    if answer.broken:
        return f"{question.name}: {answer.broken}"
    count = right(question, answer.tokens)
    if count == len(question.answer) == len(answer.tokens):
        return ""
    return f"{question.name}: token {count + 1} of {len(question.answer)} is wrong"


@dataclass(frozen=True)
class Difference:
    """Two answers to one question: the first token that differs (None: none), and the largest logprob difference."""

    token: int | None
    logprob: float


def difference(one: Completion, other: Completion) -> Difference:
    """Compare tokens, and log-probabilities up to the first token that differs."""
    pairs = zip(one.tokens, other.tokens, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    ended = same == len(one.tokens) == len(other.tokens)
    both = zip(one.logprobs[:same], other.logprobs[:same], strict=False)
    return Difference(None if ended else same, max((abs(a - b) for a, b in both), default=0.0))
