"""A known answer that depends on a token far back in the prompt, which only compressed attention reaches.

A prompt holds one of `keys` anywhere, and ends in a query. The answer is the walk from the key, as if the prompt had
ended there. There is a query for each ratio of compression, and layers of the other ratio do not answer it:

    query         asks for the flag of its ratio, in attention and in the indexer, instead of for its own equals
    compressor    makes nothing of a token, but the flag of its ratio and its code of a key; so the entry of a block
                  with a key is that flag and that code, whatever else is in the block
    indexer       the same with one dimension of its keys; it has to choose that entry among all others
    window        a query finds itself there, and itself says nothing: nothing near the end is read

The walk goes through the keys too, but never to a query.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .v4_tensors import Ints, Linear, put, zeros
from .v4_weights import HEAD_DIM, Dims, Weights, compressed_rows

FLAGS = {4: 320, 128: 321}
"""The dimension of keys that the query of a ratio looks for."""
NULL = (322, 323, 324)
"""Dimensions that make a query's own key weaker than that of a compressed entry."""
INDEX_DIM = 128
INDEX_FLAG = 0
KEYS = 4
"""In each half of the vocabulary."""


@dataclass(frozen=True)
class Reach:
    """The tokens of it: the query of each ratio, and the keys."""

    queries: dict[int, int]
    keys: tuple[int, ...]


def reach(vocab: int) -> Reach:
    """Return the last tokens of a vocabulary as queries, and the last others of both halves as keys."""
    half, last = vocab // 2, vocab - len(FLAGS)
    queries = {ratio: last + number for number, ratio in enumerate(FLAGS)}
    return Reach(queries, (*range(half - KEYS, half), *range(last - KEYS, last)))


class ReachWeights(Weights):
    """
    The weights of a model that has both: the walk, and the far key.

    Compressors weigh each dimension of a token by itself. With noise of 2**-7, a key's flag got up to five times the
    weight of its code, and the answer hung on a logit of 3; with this it has at least 20 (float64, Flash's widths).
    """

    gate_noise = -10

    def __init__(self, dims: Dims, perm: Sequence[int], seed: int, tokens: Reach) -> None:
        super().__init__(dims, list(perm), seed)
        self.queries = {ratio: np.array([token]) for ratio, token in tokens.queries.items()}
        self.keys: Ints = np.array(tokens.keys)
        self._compressors: dict[tuple[int, int], Linear] = {}

    @cached_property
    def wq_b(self) -> Linear:
        """As without it, but a query's code becomes the flag of its ratio."""
        linear = super().wq_b
        for ratio, query in self.queries.items():
            latent = self.code()[query]
            for head in range(self.dims.heads):
                linear.levels[head * HEAD_DIM + latent, latent] = 0
                put(linear, np.array([head * HEAD_DIM + FLAGS[ratio]]), latent, 1, 0)
        return linear

    @cached_property
    def wkv(self) -> Linear:
        """As without it, but a query has a key that only its like finds, and no value."""
        linear = super().wkv
        for ratio, query in self.queries.items():
            column = self.field(0)[query]
            linear.levels[:, column] = 0
            for row in (FLAGS[ratio], *NULL):
                put(linear, np.array([row]), column, 1, 0)
        return linear

    def undisturbed(self, noise: Linear) -> Linear:
        """
        No noise where the compressors look for keys: a block without one has to make an entry of zeros.

        The norm makes any other entry as strong as that of a key. At Flash's widths, noise was enough for that: with it
        the answer to 1,310 tokens had 0 of 16 tokens right (2 x H200, vLLM 0.32.0, 2026-11-29).
        """
        levels = noise.levels.copy()
        levels[self.field(0)[[*self.keys, *np.concatenate(list(self.queries.values()))]]] = 0
        return Linear(levels, noise.exps)

    def compressor(self, ratio: int, head_dim: int) -> Linear:
        """The flag of keys, and their code where the entry is a value too; overlapping blocks have the same rows."""
        if (ratio, head_dim) not in self._compressors:
            self._compressors[ratio, head_dim] = self._compressor(ratio, head_dim)
        return self._compressors[ratio, head_dim]

    def _compressor(self, ratio: int, head_dim: int) -> Linear:
        rows = compressed_rows(ratio, head_dim)
        linear, columns = zeros(rows, self.dims.hidden), self.field(0)[self.keys]
        for start in range(0, rows, head_dim):
            flag = INDEX_FLAG if head_dim == INDEX_DIM else FLAGS[ratio]
            put(linear, np.full_like(columns, start + flag), columns, 1, 0)
            if head_dim != INDEX_DIM:
                put(linear, start + self.code()[self.keys], columns, 1, 0)
        return linear

    @cached_property
    def index_query(self) -> Linear:
        """The code of the query of ratio 4 to the flag in every head of the indexer."""
        linear, column = zeros(self.dims.index_heads * INDEX_DIM, self.dims.q_lora), self.code()[self.queries[4]]
        for head in range(self.dims.index_heads):
            put(linear, np.array([head * INDEX_DIM + INDEX_FLAG]), column, 1, 0)
        return linear

    @cached_property
    def index_weights(self) -> Linear:
        """Every head of the indexer counts for that query."""
        linear, column = zeros(self.dims.index_heads, self.dims.hidden), self.field(0)[self.queries[4]]
        put(linear, np.arange(self.dims.index_heads), np.repeat(column, self.dims.index_heads), 1, 0)
        return linear
