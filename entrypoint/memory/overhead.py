"""
What vLLM takes of a GPU in addition to weights and KV cache, in GiB: a model with fitted numbers.

Each number has its starts in qualification/results/memory, and a test compares them; docs/explanation/memory.md
explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

GIB = 1 << 30
VOCABULARY = 129_280


@dataclass(frozen=True)
class Overhead:
    """
    The numbers of one kind of GPU.

    `fixed`: NCCL, libraries and the indexer's logits, for which vLLM reserves 0.5 GiB while it profiles
    (VLLM_SPARSE_INDEXER_MAX_LOGITS_MB). `activations`: for each 1,024 batched tokens. `graphs`: for any CUDA graph;
    each one and each 1,024 tokens of all of them add what `GRAPH_GIB` and `GRAPH_TOKENS_GIB` say.
    `spread`: by how much starts differ from this count; `share`: by which part of graphs and activations.
    """

    fixed: float
    activations: float
    graphs: float
    spread: float
    share: float


H200 = Overhead(1.33, 0.23, 0.385, 0.5, 0.1)
"""Starts of W4A16 with vLLM 0.32.0 (2026-11-22 and 2026-11-28)."""
SM12 = Overhead(0.70, 0.10, 0.10, 0.8, 0.25)
"""Five starts of 0731-NVFP4 with five draft tokens on 2 x RTX PRO 6000 Max-Q (third party, a fork of vLLM, 2026-09);
one of W4A16 (another fork, 2026-05) differs by 0.8 GiB."""
UNMEASURED = Overhead(1.33, 0.23, 0.385, 2.0, 0.25)
"""As on H200; starts of others with earlier versions differ from it by up to 2.4 GiB (GH200, vLLM 0.22)."""
GRAPH_GIB, GRAPH_TOKENS_GIB = 0.018, 0.093
"""0.61, 1.14, 2.30, 3.43 GiB for 11, 23, 51, 35 sizes to 64, 512, 512, 4,096 tokens (H200, vLLM 0.32.0, 2026-11-22)."""
SHAPE_GIB = 1.5
"""Pipeline, data or expert parallelism: buffers that nobody has measured."""
SHARE_OF_WEIGHTS, SHARE_OF_REQUESTS = 0.003, 0.5
"""By which part the weights and the buffers of `max-num-seqs` may differ."""


def graphs_gib(of: Overhead, sizes: Sequence[int]) -> float:
    """Return what CUDA graphs of these sizes take; vLLM reserves it before it captures them."""
    if not sizes:
        return 0.0
    return of.graphs + GRAPH_GIB * len(sizes) + GRAPH_TOKENS_GIB * sum(sizes) / 1024


def activations_gib(of: Overhead, batched_tokens: int) -> float:
    """Return what a step of so many tokens takes while it is computed."""
    return of.activations * batched_tokens / 1024


def sequences_gib(sequences: int, draft_tokens: int, *, draft_logits: bool) -> float:
    """
    Return the buffers that grow with `max-num-seqs`.

    The sampler counts tokens of prompts and answers (v1/worker/gpu/sample/penalties.py); probabilistic drafts keep
    their logits in BF16 (v1/worker/gpu/spec_decode/speculator.py).
    """
    counts = VOCABULARY * 4 + ceil(VOCABULARY / 32) * 4
    logits = draft_tokens * VOCABULARY * 2 if draft_logits else 0
    return sequences * (counts + logits) / GIB


def workspace_gib(context: int, batched_tokens: int, factor: int, *, gathers: bool) -> float:
    """
    Return the buffer that vLLM reserves for the context: the indexer's keys, or the keys that prefill gathers.

    Without `factor` it is vLLM's (config/vllm.py); FlashMLA gathers, FlashInfer does not.
    """
    factor = factor or (5 if context <= 256 * 1024 else 2)
    keys = context * 8 * factor // 4 * 132
    gathered = 4 * (ceil(context / 4) + 128 + batched_tokens) * 1024 if gathers else 0
    return max(keys, gathered) / GIB
