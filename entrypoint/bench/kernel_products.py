"""
Which products of a plan DeepGEMM computes on SM 9.0. Pure.

Every linear layer that vLLM 0.32.0 keeps in FP8 blocks, by its source (models/deepseek_v4: attention.py, and
nvidia/model.py, mtp.py, dspark.py; read 2026-11-30). Compressors, routers and the output head never are; the other
layers are as the layout stores them. tests/patches/test_fp8_products.py holds this against vLLM's own modules.

Before shared experts were in it, 35 of the 50 kernels that a first start of DeepSeek's own Flash layout compiled were
theirs, and it profiled for 229 s (TP=2, H200, vLLM 0.32.0, 2026-11-30). What a start takes since is unmeasured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..parallel import Parallel

if TYPE_CHECKING:
    from ...demo.v4_layouts import Layout
    from ...demo.v4_weights import Dims

HC = 4
LINEAR, GROUPED, HYPER = "linear", "grouped", "hyper connections"
BLOCK = 128
"""Of weights that share a scale."""
_HEAD_DIM, _INDEX_HEAD_DIM = 512, 128
_MIXES = HC * (HC + 2)
_DSPARK = 3
"""Layers of a DSpark drafter, and of the target model whose hidden states it reads. All of every published model."""


@dataclass(frozen=True)
class Gemm:
    """A product of `tokens` x `k` and `k` x `n`, in `groups` of them."""

    kind: str
    n: int
    k: int
    groups: int = 1


def gemms(sizes: Dims, stored: Layout, parallel: Parallel, *, drafts: bool = True) -> list[Gemm]:
    """Return the FP8 products, and those of the hyper connections, on one GPU; each once."""
    parts = [(stored.target, _target(sizes, parallel))]
    if drafts:
        parts.append((stored.draft, _draft(sizes, parallel, stored.drafter)))
    found = [one for storage, roles in parts for role in sorted(storage.fp8 & roles.keys()) for one in roles[role]]
    hyper = [Gemm(HYPER, _MIXES, HC * sizes.hidden), Gemm(HYPER, _MIXES, sizes.hidden)]
    return list(dict.fromkeys([*found, *hyper]))


def _target(sizes: Dims, parallel: Parallel) -> dict[str, list[Gemm]]:
    """Return them by the role of their weight in demo/v4_layouts.py; each GPU has all queries of the indexer."""
    hidden, groups = sizes.hidden, sizes.o_groups // parallel.tensor
    heads = sizes.heads * _HEAD_DIM // parallel.tensor
    inner = _shared(sizes.inter, parallel)
    return {
        "attention": [
            Gemm(LINEAR, sizes.q_lora + _HEAD_DIM, hidden),
            Gemm(LINEAR, heads, sizes.q_lora),
            Gemm(LINEAR, hidden, groups * sizes.o_lora),
            Gemm(GROUPED, sizes.o_lora, heads // groups, groups),
        ],
        "indexer_q": [Gemm(LINEAR, sizes.index_heads * _INDEX_HEAD_DIM, sizes.q_lora)],
        "shared": [Gemm(LINEAR, 2 * inner, hidden), Gemm(LINEAR, hidden, inner)],
    }


def _draft(sizes: Dims, parallel: Parallel, drafter: str) -> dict[str, list[Gemm]]:
    """Return those of a draft head: layers like the target model's, without an indexer, and its projections."""
    hidden, layer = sizes.hidden, _target(sizes, parallel)
    own = {"attention": layer["attention"], "shared": layer["shared"], "projections": [Gemm(LINEAR, hidden, hidden)]}
    if drafter == "dspark":
        own["attention"] = [*layer["attention"], Gemm(LINEAR, _DSPARK * _HEAD_DIM, hidden)]
        own["projections"] = [Gemm(LINEAR, hidden, _DSPARK * hidden)]
    return own


def _shared(inter: int, parallel: Parallel) -> int:
    """
    Return the width of the shared experts on a GPU: whole blocks, padded on the last GPUs.

    Where data parallel replicas share their experts, each GPU has all of it (`_use_sequence_parallel`, which names
    backends too that have no kernels for SM 9.0).
    """
    whole = parallel.expert and parallel.data > 1 and parallel.pipeline == 1
    return -(-inter // BLOCK // (1 if whole else parallel.tensor)) * BLOCK
