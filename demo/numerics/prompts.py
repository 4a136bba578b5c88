"""What is asked: random tokens, the same on every machine."""

from dataclasses import dataclass

import numpy as np

from ..v4_weights import SPECIAL

VOCAB, GENERATED = 128, 16


@dataclass(frozen=True)
class NumericsPrompt:
    """
    One request.

    The answer is GENERATED times the token `answer`, the only one that is allowed: so every engine computes the same
    positions, while its logprobs are those of all tokens.
    """

    name: str
    tokens: tuple[int, ...]
    answer: int


def drawn(name: str, count: int, seed: int) -> NumericsPrompt:
    """Return a prompt of `count` tokens."""
    raw = np.random.PCG64(np.random.SeedSequence([seed, count])).random_raw(count)
    tokens = (raw % np.uint64(VOCAB - SPECIAL) + np.uint64(SPECIAL)).tolist()
    return NumericsPrompt(name, tuple(tokens), tokens[seed])


PROMPTS = (drawn("short", 40, 1), drawn("middle", 310, 2), drawn("long", 2552, 3))
"""Within the window; past it, and past YaRN's original maximum; past the indexer's limit, and 19 entries of ratio 128.

The answer to the last one completes the twentieth.
"""
