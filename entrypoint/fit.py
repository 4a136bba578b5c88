"""
Does a model's share fit one GPU, with room for one full-length request?

All sizes are GiB a GPU. The latent KV cache has one head, so tensor parallelism does not divide it.
Source of the block arithmetic: vLLM 0.32.0's admission check for the 43 + 1 layers of DeepSeek-V4-Flash; against a
start on 2 x H200 (vLLM 0.32.0, 2026-11-22) it asks 3.7 % more than vLLM did.
"""

from __future__ import annotations

from math import ceil

GIB = 1 << 30
OVERHEAD_GIB = 1.6
"""Activations 0.7, CUDA context and NCCL 0.7, CUDA graphs 0.2 (2 x RTX PRO 6000 Max-Q, vLLM nightly, 2026)."""


def weights_gib(total: float, replicated: float, tensor_parallel_size: int) -> float:
    """Return the weights on each GPU: the replicated part, and a share of the rest."""
    return (total - replicated) / tensor_parallel_size + replicated


def blocks_per_request(context: int, batched_tokens: int, *, asynchronous: bool) -> int:
    """Return the KV blocks (256 tokens) of one request of `context` tokens, as vLLM counts them for admission."""
    inflight = batched_tokens * (2 if asynchronous else 1)
    compressed = ceil(min(7 + inflight, context) / 4) + 1
    indexed = ceil(min(127 + inflight, context) / 8) + 1
    window = 2 * (ceil(min(127 + inflight, context) / 64) + 1)
    return ceil(context / 256) + compressed + indexed + window


def request_gib(context: int, batched_tokens: int, block_bytes: int, *, asynchronous: bool) -> float:
    """Return the KV cache that one full-length request needs before vLLM starts."""
    return blocks_per_request(context, batched_tokens, asynchronous=asynchronous) * block_bytes / GIB


def cache_gib(memory: float, utilization: float, weights: float) -> float:
    """Return what is left for the KV cache; negative when the weights alone do not fit."""
    return memory * utilization - weights - OVERHEAD_GIB
