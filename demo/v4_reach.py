"""A known answer that depends on a token far back in the prompt, which only compressed attention reaches.

A prompt holds one of `keys` anywhere, and ends in `query`. The answer is the walk from the key, as if the prompt had
ended there:

    query         asks for FLAG, in attention and in the indexer, instead of for its own equals
    compressor    makes nothing of a token, but FLAG and its code of a key; so the entry of a block with a key is FLAG
                  and that code, whatever else is in the block
    indexer       the same with one dimension of its keys; it has to choose that entry among all others
    window        the query finds itself there, and itself says nothing: nothing near the end is read

The walk goes through the keys too, but never to the query.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .v4_tensors import Ints, Linear, put, zeros
from .v4_weights import HEAD_DIM, Dims, Weights

FLAG, NULL = 320, (321, 322, 323)
"""Dimensions of keys: what the query looks for, and what makes its own key weaker than that of a compressed entry."""
INDEX_DIM = 128
INDEX_FLAG = 0
KEYS = 4
"""In each half of the vocabulary."""


@dataclass(frozen=True)
class Reach:
    """The tokens of it."""

    query: int
    keys: tuple[int, ...]


def reach(vocab: int) -> Reach:
    """Return the last token of a vocabulary as query, and the last others of both halves as keys."""
    half = vocab // 2
    return Reach(vocab - 1, (*range(half - KEYS, half), *range(vocab - 1 - KEYS, vocab - 1)))


class ReachWeights(Weights):
    """The weights of a model that has both: the walk, and the far key."""

    def __init__(self, dims: Dims, perm: Sequence[int], seed: int, tokens: Reach) -> None:
        super().__init__(dims, list(perm), seed)
        self.query: Ints = np.array([tokens.query])
        self.keys: Ints = np.array(tokens.keys)

        self._compressors: dict[tuple[int, int], Linear] = {}

    @cached_property
    def wq_b(self) -> Linear:
        """As without it, but the query's code becomes FLAG."""
        linear, latent = super().wq_b, self.code()[self.query]
        for head in range(self.dims.heads):
            linear.levels[head * HEAD_DIM + latent, latent] = 0
            put(linear, np.array([head * HEAD_DIM + FLAG]), latent, 1, 0)
        return linear

    @cached_property
    def wkv(self) -> Linear:
        """As without it, but the query has a key that only a query finds, and no value."""
        linear, column = super().wkv, self.field(0)[self.query]
        linear.levels[:, column] = 0
        for row in (FLAG, *NULL):
            put(linear, np.array([row]), column, 1, 0)
        return linear

    def compressor(self, rows: int, head_dim: int) -> Linear:
        """FLAG of keys, and their code where the entry is a value too; the rows of overlapping blocks are the same."""
        if (rows, head_dim) not in self._compressors:
            self._compressors[rows, head_dim] = self._compressor(rows, head_dim)
        return self._compressors[rows, head_dim]

    def _compressor(self, rows: int, head_dim: int) -> Linear:
        linear, columns = zeros(rows, self.dims.hidden), self.field(0)[self.keys]
        for start in range(0, rows, head_dim):
            flag = INDEX_FLAG if head_dim == INDEX_DIM else FLAG
            put(linear, np.full_like(columns, start + flag), columns, 1, 0)
            if head_dim != INDEX_DIM:
                put(linear, start + self.code()[self.keys], columns, 1, 0)
        return linear

    @cached_property
    def index_query(self) -> Linear:
        """The query's code to FLAG in every head of the indexer."""
        linear, column = zeros(self.dims.index_heads * INDEX_DIM, self.dims.q_lora), self.code()[self.query]
        for head in range(self.dims.index_heads):
            put(linear, np.array([head * INDEX_DIM + INDEX_FLAG]), column, 1, 0)
        return linear

    @cached_property
    def index_weights(self) -> Linear:
        """Every head of the indexer counts for the query."""
        linear, column = zeros(self.dims.index_heads, self.dims.hidden), self.field(0)[self.query]
        put(linear, np.arange(self.dims.index_heads), np.repeat(column, self.dims.index_heads), 1, 0)
        return linear
