"""Attention of the reference: a window of the last tokens, compressed entries, an indexer that chooses among them."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..v4_weights import Dims
from .rounding import Floats, fp8, kv_entry
from .sizes import HEAD_DIM, INDEX_DIM, ROPE_DIM, WINDOW, YARN_FACTOR

EPS, THETA, COMPRESSED_THETA, FAST, SLOW = 1e-6, 1e4, 1.6e5, 32, 1
CHUNK = 128
"""Queries at once, so that 64 heads and 2,600 positions fit into memory."""
Params = Mapping[str, NDArray[Any]]
Ints = NDArray[np.int64]


def rms(x: Floats, gain: NDArray[Any] | None = None) -> Floats:
    """Root-mean-square norm over the last axis."""
    normed = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS)
    return normed if gain is None else normed * gain


def rotate(x: Floats, positions: Ints, angles: Floats) -> Floats:
    """Turn the pairs at the end of the last axis; the first axis is the position."""
    turns = (positions[:, None] * angles).reshape(len(x), *[1] * (x.ndim - 2), -1)
    even, odd = x[..., -ROPE_DIM::2], x[..., -ROPE_DIM + 1 :: 2]
    turned = np.stack([even * np.cos(turns) - odd * np.sin(turns), odd * np.cos(turns) + even * np.sin(turns)], axis=-1)
    return np.concatenate([x[..., :-ROPE_DIM], turned.reshape(*x.shape[:-1], ROPE_DIM)], axis=-1)


def overlapped(x: Floats, first: float) -> Floats:
    """Put the first half of the group before in front of the second half of each group."""
    half = x.shape[-1] // 2
    before = np.concatenate([np.full((1, *x.shape[1:-1], half), first), x[:-1, :, :half]])
    return np.concatenate([before, x[:, :, half:]], axis=1)


class Attention:
    """One layer's; `ratio` is 0, 4 or 128."""

    def __init__(self, p: Params, d: Dims, prefix: str, ratio: int) -> None:
        self.p, self.d, self.prefix, self.ratio = p, d, prefix, ratio

    def weight(self, name: str) -> NDArray[Any]:
        """Return a weight by its name in this layer."""
        return self.p[f"{self.prefix}.{name}.weight"]

    @cached_property
    def angles(self) -> Floats:
        """The angle per position of each pair; with compression another base, stretched by YaRN."""
        pairs = np.arange(0, ROPE_DIM, 2) / ROPE_DIM
        if not self.ratio:
            return THETA**-pairs
        plain, original = COMPRESSED_THETA**-pairs, self.d.max_positions // YARN_FACTOR

        def pair(turns: float) -> float:  # the pair that turns so often within the original maximum
            return ROPE_DIM * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(COMPRESSED_THETA))

        low, high = max(np.floor(pair(FAST)), 0), min(np.ceil(pair(SLOW)), ROPE_DIM - 1)
        stretched = np.clip((np.arange(ROPE_DIM // 2) - low) / max(high - low, 1e-3), 0, 1)
        return plain * (1 - stretched) + plain / YARN_FACTOR * stretched

    def sequence(self, h: Floats) -> Floats:
        """Return attention's output for a whole sequence."""
        positions = np.arange(len(h))
        heads, low = self.queries(h, positions)
        own, far = self.entries(h, positions), np.zeros((0, HEAD_DIM))
        if 0 < self.ratio <= len(h):
            far = kv_entry(self.compress("compressor", h), ROPE_DIM)
        visible = np.arange(len(far)) < ((positions + 1) // max(self.ratio, 1))[:, None]
        if self.ratio == 4 and len(far):
            self.choose(visible, h, low)
        out = np.empty_like(heads)
        for begin in range(0, len(h), CHUNK):
            rows, first = slice(begin, begin + CHUNK), max(begin - WINDOW + 1, 0)
            near = own[first : begin + CHUNK]
            distance = positions[rows][:, None] - (first + np.arange(len(near)))
            mask = np.concatenate([(distance >= 0) & (distance < WINDOW), visible[rows]], axis=1)
            out[rows] = self.mixed(heads[rows], np.concatenate([near, far]), mask)
        return self.projected(out, positions)

    def queries(self, h: Floats, positions: Ints) -> tuple[Floats, Floats]:
        """Return the heads' queries, and the low-rank form that the indexer shares."""
        low = rms(h @ self.weight("wq_a").T, self.weight("q_norm"))
        heads = rms((low @ self.weight("wq_b").T).reshape(len(h), self.d.heads, HEAD_DIM))
        return rotate(heads, positions, self.angles), low

    def entries(self, h: Floats, positions: Ints) -> Floats:
        """Return the tokens' own cache entries, keys and values at once."""
        kv = rms(h @ self.weight("wkv").T, self.weight("kv_norm"))
        return kv_entry(rotate(kv, positions, self.angles), ROPE_DIM)

    def compress(self, name: str, h: Floats) -> Floats:
        """
        Return one entry for every `ratio` tokens.

        With ratio 4, an entry also sees the four tokens before, by the first half of their projection.
        """
        count = len(h) // self.ratio
        groups = h[: count * self.ratio].reshape(count, self.ratio, h.shape[1])
        value = groups @ self.weight(f"{name}.wkv").T
        score = groups @ self.weight(f"{name}.wgate").T + self.p[f"{self.prefix}.{name}.ape"]
        if self.ratio == 4:
            value, score = overlapped(value, 0.0), overlapped(score, -np.inf)
        share = np.exp(score - score.max(axis=1, keepdims=True))
        entry = (share * value).sum(axis=1) / share.sum(axis=1)
        return rotate(rms(entry, self.weight(f"{name}.norm")), np.arange(count) * self.ratio, self.angles)

    def choose(self, visible: NDArray[np.bool_], h: Floats, low: Floats) -> None:
        """Leave only the indexer's best entries visible, where a position has more than it may take."""
        keys = fp8(self.compress("indexer.compressor", h), INDEX_DIM)
        for begin in range((self.d.index_topk + 1) * 4 - 1, len(h), CHUNK):
            rows = slice(begin, begin + CHUNK)
            query = (low[rows] @ self.weight("indexer.wq_b").T).reshape(-1, self.d.index_heads, INDEX_DIM)
            query = fp8(rotate(query, begin + np.arange(len(query)), self.angles), INDEX_DIM)
            gates = h[rows] @ self.weight("indexer.weights_proj").T
            score = (gates[:, None, :] @ np.maximum(query @ keys.T, 0))[:, 0]
            score[~visible[rows]] = -np.inf
            left_out = np.argsort(-score, axis=1, kind="stable")[:, self.d.index_topk :]
            np.put_along_axis(visible[rows], left_out, values=False, axis=1)

    def mixed(self, heads: Floats, kv: Floats, mask: NDArray[np.bool_]) -> Floats:
        """Softmax over the visible entries and each head's sink, which takes weight and gives nothing."""
        sink = self.p[f"{self.prefix}.attn_sink"]
        score = np.where(mask[:, None, :], heads @ kv.T / np.sqrt(HEAD_DIM), -np.inf)
        top = np.maximum(score.max(axis=-1), sink)[..., None]
        weight = np.exp(score - top)
        return weight @ kv / (weight.sum(axis=-1, keepdims=True) + np.exp(sink[:, None] - top))

    def projected(self, out: Floats, positions: Ints) -> Floats:
        """Undo the rotation; bring each group of heads down with its own matrix, and all groups into the stream."""
        groups = rotate(out, -positions, self.angles).reshape(len(out), self.d.o_groups, -1)
        down = self.weight("wo_a").reshape(self.d.o_groups, self.d.o_lora, -1)
        return np.concatenate([groups[:, n] @ down[n].T for n in range(len(down))], axis=1) @ self.weight("wo_b").T
