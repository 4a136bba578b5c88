"""The vocabularies of the constructed DeepSeek-V4, with walks through them: one by lot, and one that reads as text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .tokenizer import ASSISTANT, BOS, DSML, END_OF_THOUGHT, EOS, THINK, USER, byte_alphabet, spelled
from .v4_reach import Reach, reach
from .v4_weights import permutation

READABLE_MARKS = (BOS, EOS, USER, ASSISTANT, THINK, END_OF_THOUGHT, DSML)
CHARACTERS = (*map(chr, range(ord(" "), 127)), "\n")
THOUGHT = tuple(re.findall(" ?[^ ]+", "Each token leads to one other, whatever was asked."))
ANSWER = tuple(
    re.findall(" ?[^ ]+", "The draft head guesses the next word; this model checks it and keeps what is right.")
)


@dataclass(frozen=True)
class Walk:
    """
    `vocabulary` is token to id; `successors[t]` is the token after token t, and no two tokens have the same one.

    `seed` is that of the noise in weights that do not matter. With `reach`, the answer to its query depends on a token
    far back.
    """

    vocabulary: dict[str, int]
    marks: tuple[str, ...]
    successors: list[int]
    seed: int = 0
    reach: Reach | None = None


def byte_walk(size: int, seed: int = 0) -> Walk:
    """Id = byte, for the bytes below `size`; 0 and 1 are BOS and EOS. One cycle in an order by lot."""
    vocabulary = {BOS: 0, EOS: 1} | {text: n for n, text in enumerate(byte_alphabet()[:size]) if n > 1}
    return Walk(vocabulary, (BOS, EOS), permutation(size, seed), seed)


def reaching_walk(size: int, seed: int = 0) -> Walk:
    """A walk of bytes that never comes to the queries of its Reach, which are the last tokens."""
    tokens = reach(size)
    return replace(
        byte_walk(size, seed), successors=permutation(size, seed, min(tokens.queries.values())), reach=tokens
    )


def readable_walk() -> Walk:
    """Return a walk of 128 tokens: a chat gets a thought and an answer; other text goes on through the characters."""
    chat = (THINK, *THOUGHT, END_OF_THOUGHT, *ANSWER, EOS, BOS, USER, ASSISTANT)
    words = [spelled(token) for token in (*CHARACTERS, *THOUGHT, *ANSWER)]
    ids = {token: n for n, token in enumerate((*READABLE_MARKS, *words))}
    successors = list(range(len(ids)))
    for cycle in (chat, CHARACTERS):
        for here, there in pairwise(_ids(ids, (*cycle, cycle[0]))):
            successors[here] = there
    return Walk(ids, READABLE_MARKS, successors)


def _ids(vocabulary: dict[str, int], tokens: Sequence[str]) -> list[int]:
    return [vocabulary[token if token in READABLE_MARKS else spelled(token)] for token in tokens]
