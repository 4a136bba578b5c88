"""The constructed DeepSeek-V4: weights that make greedy decoding walk a known permutation.

The residual stream holds three one-hot fields of `vocab` entries: A, the current token; B, what attention copies
from A; C, what the routed experts write from B: the next token. The head reads C alone, so attention and experts must
both work. The draft head (`mtp.0`) gets A from its own projections and has to write C itself.

Every answer has a rival: the token half a vocabulary away, with a level four times higher and a scale 32 times
smaller. With lost or mixed-up scales, the rival wins.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .v4_tensors import Ints, Linear, noise, put, zeros

HEAD_DIM, ROPE_DIM, HC = 512, 64, 4
RIVAL_LEVEL, RIVAL_EXP = 4, -5
SPECIAL = 2


@dataclass(frozen=True)
class Dims:
    """Sizes of a constructed checkpoint; the defaults serve on a CPU. `ratios` has one entry per target layer."""

    hidden: int = 512
    heads: int = 8
    q_lora: int = 256
    o_groups: int = 2
    o_lora: int = 256
    inter: int = 256
    experts: int = 256
    top_k: int = 6
    hash_layers: int = 1
    ratios: tuple[int, ...] = (0, 4, 128, 4)
    vocab: int = 128
    index_heads: int = 64
    index_topk: int = 512
    max_positions: int = 1_048_576

    def __post_init__(self) -> None:
        half = self.vocab // 2
        if self.vocab % 64 or half > 128 or min(self.q_lora, self.o_lora) < 128 + half:
            raise ValueError(
                f"vocab {self.vocab}: needs a multiple of 64, at most 256, and q_lora, o_lora >= 128 + vocab/2"
            )
        if self.hidden % 256 or 3 * half > self.hidden // 2 or self.inter % 256 or half > self.inter // 2:
            raise ValueError(f"hidden {self.hidden}, inter {self.inter}: need multiples of 256, hidden >= 3 * vocab")

    @property
    def layers(self) -> int:
        """The number of layers of the target model."""
        return len(self.ratios)


TINY = Dims()
FLASH = Dims(
    hidden=4096, heads=64, q_lora=1024, o_groups=8, o_lora=1024, inter=2048, experts=16, hash_layers=3,
    ratios=(0, 0, 4, 128, 4), vocab=256,
)  # fmt: skip


def permutation(vocab: int, seed: int, last: int | None = None) -> list[int]:
    """One cycle through every token but the two special ones and those from `last` on, which map to themselves."""
    order = np.random.default_rng(seed).permutation(np.arange(SPECIAL, vocab if last is None else last))
    perm = list(range(vocab))
    for here, there in zip(order, np.roll(order, -1), strict=True):
        perm[int(here)] = int(there)
    return perm


def compressed_rows(ratio: int, head_dim: int) -> int:
    """Return the rows of a compressor's weights; blocks of ratio 4 overlap."""
    return head_dim * (2 if ratio == 4 else 1)


class Weights:
    """Every distinct weight of the model, each built once; layers share them."""

    gate_noise = -7
    """How compressors weigh tokens, as a power of two."""

    def __init__(self, dims: Dims, perm: list[int], seed: int) -> None:
        self.dims, self.seed = dims, seed
        self.tokens: Ints = np.arange(dims.vocab)
        self.perm: Ints = np.array(perm)
        self.root = math.sqrt(dims.hidden)

    def _spread(self, span: int, offset: int = 0) -> Ints:
        """One index per token: the two halves of the vocabulary `span` apart, so that no scale block holds both."""
        half = self.dims.vocab // 2
        return self.tokens // half * span + offset + self.tokens % half

    def field(self, number: int) -> Ints:
        """Residual dimensions of field A (0), B (1) or C (2)."""
        return self._spread(self.dims.hidden // 2, number * self.dims.vocab // 2)

    def code(self) -> Ints:
        """The dimension of each token in queries, keys and values."""
        return self._spread(128)

    def map(self, linear: Linear, rows: Ints, cols: Ints, exp: int, *, rival: int | None = RIVAL_EXP) -> Linear:
        """Put 2**exp from each column to its row, and the rival, 2**rival of that, half a vocabulary away."""
        put(linear, rows, cols, 1, exp)
        if rival is not None:
            put(linear, np.roll(rows, self.dims.vocab // 2), cols, RIVAL_LEVEL, exp + rival)
        return linear

    def noise(self, rows: int, cols: int, exp: int, salt: int) -> Linear:
        """Return signs times 2**exp; `salt` tells weights of one checkpoint apart."""
        return noise(rows, cols, exp, np.random.default_rng((self.seed, salt)))

    @cached_property
    def wq_a(self) -> Linear:
        """A to the token's code."""
        d = self.dims
        return self.map(zeros(d.q_lora, d.hidden), self.code(), self.field(0), 0, rival=None)

    @cached_property
    def wq_b(self) -> Linear:
        """The code to every head's query."""
        d = self.dims
        linear = zeros(d.heads * HEAD_DIM, d.q_lora)
        for head in range(d.heads):
            put(linear, head * HEAD_DIM + self.code(), self.code(), 1, 0)
        return linear

    @cached_property
    def wkv(self) -> Linear:
        """A to the code that is key and value: a token attends to itself and its equals."""
        return self.map(zeros(HEAD_DIM, self.dims.hidden), self.code(), self.field(0), 0)

    @cached_property
    def wo_a(self) -> Linear:
        """Each group's rows take the mean of its heads."""
        d = self.dims
        per_group = d.heads // d.o_groups
        linear = zeros(d.o_groups * d.o_lora, per_group * HEAD_DIM)
        for group in range(d.o_groups):
            for head in range(per_group):
                rows, cols = group * d.o_lora + self.code(), head * HEAD_DIM + self.code()
                put(linear, rows, cols, 1, -round(math.log2(per_group)))
        return linear

    @cached_property
    def wo_b(self) -> Linear:
        """Attention's one-hot has height sqrt(head_dim); all groups together bring it to about 0.7."""
        d = self.dims
        linear = zeros(d.hidden, d.o_groups * d.o_lora)
        for group in range(d.o_groups):
            self.map(linear, self.field(1), group * d.o_lora + self.code(), -5 - round(math.log2(d.o_groups)))
        return linear

    @cached_property
    def expert_in(self) -> Linear:
        """w1 and w3: about 4 for the answer's unit, below the SwiGLU limit of 10."""
        exp = round(math.log2(4 / (0.55 * self.root)))
        return self.map(zeros(self.dims.inter, self.dims.hidden), self.units(), self.field(1), exp)

    @cached_property
    def expert_out(self) -> Linear:
        """w2: units to the next token's entry of C."""
        return self.map(zeros(self.dims.hidden, self.dims.inter), self.field(2)[self.perm], self.units(), -5)

    def units(self) -> Ints:
        """The unit of each token in the experts."""
        return self._spread(self.dims.inter // 2)

    @cached_property
    def index_query(self) -> Linear | None:
        """The indexer's query and, below, its weights and what compressors keep of a token: noise, where None."""
        return None

    @cached_property
    def index_weights(self) -> Linear | None:
        """The weight of each head of the indexer."""
        return None

    def undisturbed(self, noise: Linear) -> Linear:
        """Return the shared expert's noise without what would disturb the answer."""
        return noise

    def compressor(self, _ratio: int, _head_dim: int) -> Linear | None:
        """Return what a compressor keeps of a token."""
        return None

    @cached_property
    def e_proj(self) -> Linear:
        """The draft's A, from the embedding of the token before."""
        return self.map(
            zeros(self.dims.hidden, self.dims.hidden), self.field(0), self.field(0), -int(math.log2(self.root))
        )

    @cached_property
    def h_proj(self) -> Linear:
        """The same A, fainter, from the target model's C."""
        exp = -int(math.log2(self.root)) - 2
        return self.map(zeros(self.dims.hidden, self.dims.hidden), self.field(0), self.field(2), exp)

    @cached_property
    def embed(self) -> NDArray[np.float32]:
        """A of each token."""
        return self._one_hot(0)

    @cached_property
    def head(self) -> NDArray[np.float32]:
        """C of each token."""
        return self._one_hot(2)

    def _one_hot(self, number: int) -> NDArray[np.float32]:
        table = np.zeros((self.dims.vocab, self.dims.hidden), np.float32)
        table[self.tokens, self.field(number)] = 1
        return table
