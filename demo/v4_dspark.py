"""The constructed DSpark drafter: three layers, a Markov head and a confidence head that draft a known permutation.

vLLM gives the drafter one block of queries: the last token (the anchor) and noise tokens. They see each other and what
`main_proj` makes of the target model's hidden states. Each part has one task, and no part can do another's:

    main_proj    the token that the target model put next, as field D of a context token; a third of the tokens from
                 each target layer
    layer 0      attention: the anchor finds itself in the context, and its B is set; experts: C of the anchor
    layer 1      attention: every query finds the anchor, the one with C; experts: the tokens 1, 3, 5, 7 steps on
    layer 2      attention: B of all queries into D; experts: the tokens 2, 4, 6, 8 steps on
    Markov head  the next token, and a rival that scores higher and is no token of the next eight

So the layers know which tokens come, not in which order; the Markov head knows the order, but would choose the rival.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .v4_tensors import Ints, Linear, put, zeros
from .v4_weights import HEAD_DIM, SPECIAL, Dims, Weights

LAYERS, RANK, STEPS = 3, 256, 8
BLOCK_SIZE = 5
"""`dspark_block_size` as published; vLLM 0.32.0 drafts any number of tokens."""
NOISE = 1
"""The token of queries without one of their own: EOS, which no answer goes through."""
FLAG, NULL = 320, 321
"""Key dimensions: what layers 1 and 2 look for, and what keeps other keys from growing when they are normalized."""
CONFIDENCE = 8.0


@dataclass(frozen=True)
class DraftLayer:
    """The weights of one layer, by the names that its tensors have."""

    wq_a: Linear
    wq_b: Linear
    wkv: Linear
    wo_a: Linear
    wo_b: Linear
    expert_in: Linear
    expert_out: Linear


def target_layers(dims: Dims) -> tuple[int, ...]:
    """Return `dspark_target_layer_ids`: the last three layers."""
    return tuple(range(dims.layers - LAYERS, dims.layers))


class DSparkWeights:
    """Every weight of the drafter; those with another task in the target model are its own."""

    def __init__(self, weights: Weights) -> None:
        self.w, self.d = weights, weights.dims
        if self.d.q_lora - 1 in weights.code() or self.d.hidden // 2 < 2 * self.d.vocab:
            raise ValueError(f"vocab {self.d.vocab}: DSpark needs hidden >= 4 * vocab, and q_lora > vocab / 2 + 128")

    @cached_property
    def main_proj(self) -> Linear:
        """C of the three target layers side by side to D."""
        columns = self.w.tokens % LAYERS * self.d.hidden + self.w.field(2)
        return self._map(zeros(self.d.hidden, LAYERS * self.d.hidden), self.w.field(3), columns, 0)

    @cached_property
    def layers(self) -> tuple[DraftLayer, ...]:
        """Layers 0, 1 and 2."""
        query, b = self._any_query, self._into(1, -5)
        read, key, wo_a = self._units_of(1), self._key, self.w.wo_a
        return (
            DraftLayer(self._own_query(), self._wq_b, self._context_key(), wo_a, b, read, self._steps([0], -4)),
            DraftLayer(query, self._wq_b, key(2), wo_a, b, read, self._steps([1, 3, 5, 7], -4)),
            DraftLayer(
                query, self._wq_b, key(1), wo_a, self._into(3, -4), self._units_of(3), self._steps([2, 4, 6, 8], -5)
            ),
        )

    def _map(self, linear: Linear, rows: Ints, cols: Ints, exp: int) -> Linear:
        """Rivals are fainter than the target model's: here they add up over eight weights in a row."""
        return self.w.map(linear, rows, cols, exp, rival=-9)

    def _own_query(self) -> Linear:
        """A to the token's code; a noise token asks for noise tokens, whose values are nothing."""
        linear = zeros(self.d.q_lora, self.d.hidden)
        rows = np.where(self.w.tokens == NOISE, self.d.q_lora - 1, self.w.code())
        put(linear, rows, self.w.field(0), 1, 0)
        return linear

    @cached_property
    def _any_query(self) -> Linear:
        linear = zeros(self.d.q_lora, self.d.hidden)
        put(linear, np.full_like(self.w.tokens, self.d.q_lora - 1), self.w.field(0), 1, 0)
        return linear

    @cached_property
    def _wq_b(self) -> Linear:
        linear = zeros(self.d.heads * HEAD_DIM, self.d.q_lora)
        for head in range(self.d.heads):
            put(linear, head * HEAD_DIM + self.w.code(), self.w.code(), 1, 0)
            put(linear, np.array([head * HEAD_DIM + FLAG]), np.array([self.d.q_lora - 1]), 1, 0)
        return linear

    def _context_key(self) -> Linear:
        linear = self._map(zeros(HEAD_DIM, self.d.hidden), self.w.code(), self.w.field(3), 0)
        put(linear, np.array([FLAG]), self.w.field(0)[[NOISE]], 1, 0)
        return linear

    def _key(self, number: int) -> Linear:
        """A field to code and flag; without that field, a key is all NULL."""
        linear = self._map(zeros(HEAD_DIM, self.d.hidden), self.w.code(), self.w.field(number), 0)
        put(linear, np.full_like(self.w.tokens, FLAG), self.w.field(number), 1, 0)
        put(linear, np.full_like(self.w.tokens, NULL), self.w.field(0), 1, 0)
        return linear

    def _into(self, number: int, exp: int) -> Linear:
        """wo_b: all groups together bring the code into a field."""
        linear = zeros(self.d.hidden, self.d.o_groups * self.d.o_lora)
        for group in range(self.d.o_groups):
            columns = group * self.d.o_lora + self.w.code()
            self._map(linear, self.w.field(number), columns, exp - round(math.log2(self.d.o_groups)))
        return linear

    def _units_of(self, number: int) -> Linear:
        """w1 and w3: a field to units, as high as the target model's."""
        exp = round(math.log2(4 / (0.55 * self.w.root)))
        return self._map(zeros(self.d.inter, self.d.hidden), self.w.units(), self.w.field(number), exp)

    def _steps(self, counts: list[int], exp: int) -> Linear:
        """The unit of a token to C of the tokens so many steps on."""
        linear = zeros(self.d.hidden, self.d.inter)
        for count in counts:
            put(linear, self.w.field(2)[self.after(count)][SPECIAL:], self.w.units()[SPECIAL:], 1, exp)
        return linear

    def after(self, count: int) -> Ints:
        """The token `count` steps after each token."""
        tokens = self.w.tokens
        for _ in range(count):
            tokens = self.w.perm[tokens]
        return tokens

    @property
    def markov_gain(self) -> float:
        """What the Markov head adds for the next token; the rival gets a sixteenth of `root` more."""
        return self.w.root

    @cached_property
    def markov_w1(self) -> NDArray[np.float32]:
        """One dimension a token."""
        return np.eye(self.d.vocab, RANK, dtype=np.float32)

    @cached_property
    def markov_w2(self) -> NDArray[np.float32]:
        """The dimension of the token before to its successor and to the rival."""
        table = np.zeros((self.d.vocab, RANK), np.float32)
        table[self.rivals, self.w.tokens] = self.markov_gain + self.w.root / 16
        table[self.w.perm, self.w.tokens] = self.markov_gain
        return table

    @cached_property
    def rivals(self) -> Ints:
        """Per token another one that no block with it can hold: none from eight steps before to eight after."""
        near = np.stack([self.after(count) for count in range(2 * STEPS + 1)])[:, np.argsort(self.after(STEPS))]
        rivals = self.w.tokens.copy()
        for token in self.w.tokens[SPECIAL:]:
            others = np.setdiff1d(self.w.tokens[SPECIAL:], near[:, token])
            rivals[token] = others[token % len(others)]
        return rivals

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """Sure of every token: the Markov embedding counts, the hidden state does not."""
        row = np.zeros((1, self.d.hidden + RANK), np.float32)
        row[:, self.d.hidden :] = CONFIDENCE
        return row
