"""
Prompts that share a beginning, as conversations share a system prompt: known answers, and what the prefix cache has of them.

The answers are decided by a key of the beginning that no window of a prompt's end reaches, so they are read from what was
cached; the last of each prompt's tokens asks for it, for layers of one ratio and then of the other.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from dsv4_serve.demo.v4_reach import Reach
from dsv4_serve.entrypoint.qualify.known import Question, Walks

BLOCK, DRAFTS_BLOCK = 256, 64
BLOCKS = 3
PAST = (0, 31, 63, 64, 200)
"""Tokens of a beginning after its last whole block; those below a block of the drafters' are the ones that stock vLLM loses."""
PROMPTS = 4
REST = 600
"""Tokens of a prompt after the beginning: so many that windows which vLLM keeps of a prompt's end are none of the beginning's."""
BEHIND = 2
"""The key stands so far before the boundary at which a prompt resumes: in the last entry that a compressor made of it."""


@dataclass(frozen=True)
class Beginning:
    """Prompts in the order in which they are asked, and how many tokens of each the cache has."""

    shared: int
    questions: list[Question]
    cached: tuple[int, ...]


def beginnings(walks: Walks, reach: Reach, answer: int) -> list[Beginning]:
    """Return beginnings of each kind; the first two prompts of each are read, and the cache has the others'."""
    return [beginning(walks, reach, BLOCKS * BLOCK + past, answer) for past in PAST]


def beginning(walks: Walks, reach: Reach, shared: int, answer: int) -> Beginning:
    """Return prompts with one beginning, whose key stands before where drafts resume."""
    rng = random.Random(f"shared {shared}")
    plain = [token for token in range(2, len(walks.perm)) if token not in (*reach.queries.values(), *reach.keys)]
    resumes = (shared - DRAFTS_BLOCK) // BLOCK * BLOCK
    begin, key = [rng.choice(plain) for _ in range(shared)], rng.choice(reach.keys)
    begin[resumes - BEHIND] = key
    queries = [*reach.queries.values()]
    made = []
    for number in range(PROMPTS):
        rest = [plain[number], *(rng.choice(plain) for _ in range(REST - 2)), queries[number % len(queries)]]
        name = f"prompt {number + 1} of {PROMPTS} that share {shared} tokens"
        made.append(Question((*begin, *rest), tuple(walks.continuation(key, answer)), name))
    return Beginning(shared, made, (0, 0, *[resumes] * (PROMPTS - 2)))


def unlike(kinds: Sequence[Beginning], found: Sequence[int]) -> dict[str, list[int]]:
    """Return the beginnings of which the cache had other tokens than expected, and what it had of each prompt."""
    rows = [list(found[at * PROMPTS :][:PROMPTS]) for at in range(len(kinds))]
    return {str(one.shared): row for one, row in zip(kinds, rows, strict=True) if row != list(one.cached)}
