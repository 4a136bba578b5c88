"""Random weights of a DeepSeek-V4, the same on every machine: raw PCG64 bits, tables, powers of two.

Every number is a level in {0, ±1, ±2, ±3, ±4, ±6} times a power of two, so each layout holds it without rounding. The
gains keep rounding errors small (a model with larger ones is chaotic and proves nothing) and each part visible: the
compressors' norms are high, so that a query that finds the wrong entry is seen.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import v4_dspark
from ..v4_tensors import GROUP, Linear
from ..v4_weights import Dims
from .sizes import HC, HEAD_DIM, INDEX_DIM

Values = NDArray[np.float32]
LEVELS = np.array([0, 1, -1, 2, -2, 3, -3, 4, -4, 6, -6, 0, 1, -1, 2, -2], np.int8)
STEPS = np.array([-1, 0, 0, 1], np.int8)
RMS = 3.7
"""Root mean square of a level times a step."""
EXPERT, OTHER = (1, 128), (128, 128)
"""Rows and columns that share a scale: what INT4 and FP8 have in common with the finer formats."""


@dataclass(frozen=True)
class Matrix:
    """A weight that layouts quantize; `role` is a field of `v4_layouts.Storage`."""

    name: str
    role: str
    rows: int
    cols: int
    gain: float = 1.0

    def draw(self, seed: int) -> Linear:
        """Return the weight; an input of variance 1 gives an output of about `gain` squared."""
        block = EXPERT if self.role == "experts" else OTHER
        exp = round(math.log2(self.gain / (RMS * math.sqrt(self.cols))))
        grid = (-(-self.rows // block[0]), -(-self.cols // block[1]))
        steps = STEPS[_bytes(seed, self.name + ".steps", grid) & 3] + np.int8(exp)
        steps[0, 0] = exp + 1  # the global scale of every NVFP4 weight is the same
        rows = np.repeat(steps, block[0], axis=0)[: self.rows]
        exps = np.repeat(rows, block[1] // GROUP, axis=1)[:, : self.cols // GROUP]
        return Linear(LEVELS[_bytes(seed, self.name, (self.rows, self.cols)) & 15], exps)


@dataclass(frozen=True)
class Plain:
    """A tensor that no layout quantizes: `base` plus a level times `step`."""

    name: str
    shape: tuple[int, ...]
    base: float
    step: float
    dtype: str = "F32"

    def draw(self, seed: int) -> Values:
        """Return the numbers; they are exact in BF16."""
        levels = LEVELS[_bytes(seed, self.name, self.shape) & 15]
        return (np.float32(self.base) + levels.astype(np.float32) * np.float32(self.step)).astype(np.float32)


@dataclass(frozen=True)
class RoutingTable:
    """Which experts a token goes to, in the first layers."""

    name: str
    vocab: int
    experts: int
    top_k: int

    def draw(self, seed: int) -> NDArray[np.int64]:
        """Return `top_k` different experts for each token."""
        order = np.argsort(
            _raw(seed, self.name, self.vocab * self.experts).reshape(self.vocab, -1), axis=1, kind="stable"
        )
        return np.ascontiguousarray(order[:, : self.top_k])


Parameter = Matrix | Plain | RoutingTable


def _raw(seed: int, name: str, count: int) -> NDArray[np.uint64]:
    stream = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
    return stream.random_raw(count)


def _bytes(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    count = math.prod(shape)
    return _raw(seed, name, -(-count // 8)).astype("<u8").view(np.uint8)[:count].reshape(shape)


def target(d: Dims) -> Iterator[Parameter]:
    """Yield the target model's parameters."""
    yield Plain("embed.weight", (d.vocab, d.hidden), 0, 1.0, "BF16")
    yield Plain("head.weight", (d.vocab, d.hidden), 0, 2.0 ** -round(math.log2(d.hidden) / 2 + 1.1), "HEAD")
    yield _norm("norm.weight", d.hidden)
    yield from _hyper("hc_head", d.hidden, HC, 1)
    for number, ratio in enumerate(d.ratios):
        yield from block(f"layers.{number}", d, ratio, hashed=number < d.hash_layers)


def mtp(d: Dims) -> Iterator[Parameter]:
    """Yield the parameters of an MTP draft head."""
    yield from block("mtp.0", d, 0)
    for name in ("e_proj", "h_proj"):
        yield Matrix(f"mtp.0.{name}", "projections", d.hidden, d.hidden)
    for name in ("enorm", "hnorm", "norm"):
        yield _norm(f"mtp.0.{name}.weight", d.hidden)
    yield from _hyper("mtp.0.hc_head", d.hidden, HC, 1)


def dspark(d: Dims) -> Iterator[Parameter]:
    """Yield the parameters of a DSpark drafter."""
    yield Matrix("mtp.0.main_proj", "projections", d.hidden, v4_dspark.LAYERS * d.hidden)
    yield _norm("mtp.0.main_norm.weight", d.hidden)
    for number in range(v4_dspark.LAYERS):
        yield from block(f"mtp.{number}", d, 0)
    last = f"mtp.{v4_dspark.LAYERS - 1}"
    yield _norm(f"{last}.norm.weight", d.hidden)
    yield from _hyper(f"{last}.hc_head", d.hidden, HC, 1)
    for name in ("markov_w1", "markov_w2"):
        yield Plain(f"{last}.markov_head.{name}.weight", (d.vocab, v4_dspark.RANK), 0, 2**-4, "BF16")
    yield Plain(f"{last}.confidence_head.proj.weight", (1, d.hidden + v4_dspark.RANK), 0, 2**-6, "BF16")


def block(prefix: str, d: Dims, ratio: int, *, hashed: bool = False) -> Iterator[Parameter]:
    """Yield one layer's parameters."""
    for part in ("attn", "ffn"):
        yield _norm(f"{prefix}.{part}_norm.weight", d.hidden)
        yield from _hyper(f"{prefix}.hc_{part}", d.hidden, (2 + HC) * HC, 3)
    yield from _attention(f"{prefix}.attn", d)
    if ratio:
        yield from _compressor(f"{prefix}.attn.compressor", d, ratio, HEAD_DIM, 4.0 if ratio == 128 else 2.5)
    if ratio == 4:
        indexer = f"{prefix}.attn.indexer"
        yield Matrix(f"{indexer}.wq_b", "indexer_q", d.index_heads * INDEX_DIM, d.q_lora)
        yield Matrix(f"{indexer}.weights_proj", "compressor", d.index_heads, d.hidden)
        yield from _compressor(f"{indexer}.compressor", d, ratio, INDEX_DIM, 1.0)
    yield from _experts(f"{prefix}.ffn", d)
    if hashed:
        yield RoutingTable(f"{prefix}.ffn.gate.tid2eid", d.vocab, d.experts, d.top_k)
    else:
        yield Plain(f"{prefix}.ffn.gate.bias", (d.experts,), 0, 2**-5)


def _attention(prefix: str, d: Dims) -> Iterator[Parameter]:
    yield _norm(f"{prefix}.q_norm.weight", d.q_lora)
    yield _norm(f"{prefix}.kv_norm.weight", HEAD_DIM)
    yield Plain(f"{prefix}.attn_sink", (d.heads,), 0, 0.5)
    heads = d.heads * HEAD_DIM
    yield Matrix(f"{prefix}.wq_a", "attention", d.q_lora, d.hidden)
    yield Matrix(f"{prefix}.wq_b", "attention", heads, d.q_lora)
    yield Matrix(f"{prefix}.wkv", "attention", HEAD_DIM, d.hidden)
    yield Matrix(f"{prefix}.wo_a", "attention", d.o_groups * d.o_lora, heads // d.o_groups)
    yield Matrix(f"{prefix}.wo_b", "attention", d.hidden, d.o_groups * d.o_lora, 0.5)


def _compressor(prefix: str, d: Dims, ratio: int, head_dim: int, gain: float) -> Iterator[Parameter]:
    rows = head_dim * (2 if ratio == 4 else 1)
    yield Plain(f"{prefix}.ape", (ratio, rows), 0, 2**-2)
    yield _norm(f"{prefix}.norm.weight", head_dim, gain)
    for name in ("wkv", "wgate"):
        yield Matrix(f"{prefix}.{name}", "compressor", rows, d.hidden)


def _experts(prefix: str, d: Dims) -> Iterator[Parameter]:
    """w1 and w3 stay below the SwiGLU limit, which vLLM's BF16 experts on CPU leave out."""
    groups = [("experts", f"{prefix}.experts.{number}") for number in range(d.experts)]
    for role, name in [*groups, ("shared", f"{prefix}.shared_experts")]:
        yield Matrix(f"{name}.w1", role, d.inter, d.hidden)
        yield Matrix(f"{name}.w3", role, d.inter, d.hidden)
        yield Matrix(f"{name}.w2", role, d.hidden, d.inter, 0.5 if role == "experts" else 0.25)
    yield Plain(f"{prefix}.gate.weight", (d.experts, d.hidden), 0, 2.0 ** -round(math.log2(d.hidden) / 2 + 1), "BF16")


def _norm(name: str, size: int, gain: float = 1.0) -> Plain:
    return Plain(name, (size,), gain, 2**-4, "BF16")


def _hyper(name: str, hidden: int, rows: int, scales: int) -> Iterator[Parameter]:
    yield Plain(f"{name}_fn", (rows, HC * hidden), 0, 2.0 ** -round(math.log2(HC * hidden) / 2 + 2))
    yield Plain(f"{name}_base", (rows,), 0, 0.25)
    yield Plain(f"{name}_scale", (scales,), 1, 2**-3)
