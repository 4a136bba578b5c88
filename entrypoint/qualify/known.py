"""Prompts with a known answer, and how an answer differs from it. Pure."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from ..client.answers import Completion

if TYPE_CHECKING:
    from ...demo.v4_reach import Reach

SEED = 0
NEAR_START, BEHIND = 60, 200
"""Tokens: where a far key stands at most, or how far before the end at least; the window has 128."""


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
    walks: Walks, lengths: Sequence[int], tokens: Sequence[int], without: Collection[int] = ()
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


def far(walks: Walks, reach: Reach, length: int, tokens: int) -> list[Question]:
    """
    Return prompts of one length whose answer a key decides that no window reaches, for layers of both ratios.

    It stands among the first tokens, and for the indexer also before the last few hundred: one that chooses the first
    blocks, or the last, misses one of them.
    """
    rng = random.Random(f"{SEED} {length}")  # noqa: S311
    plain = [token for token in range(2, len(walks.perm)) if token not in (*reach.queries.values(), *reach.keys)]
    start, behind = rng.randrange(1, NEAR_START), length - rng.randrange(BEHIND, min(2 * BEHIND, length - 1))
    made = []
    for (ratio, place), key in zip(((4, start), (4, behind), (128, start)), rng.sample(reach.keys, 3), strict=True):
        prompt = [rng.choice(plain) for _ in range(length - 1)] + [reach.queries[ratio]]
        prompt[place] = key
        name = f"{length:,} tokens, key at {place:,}, ratio {ratio}"
        made.append(Question(tuple(prompt), tuple(walks.continuation(key, tokens)), name))
    return made


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
