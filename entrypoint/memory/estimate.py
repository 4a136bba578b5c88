"""
How much memory a plan takes on each GPU, as vLLM 0.32.0 counts it: weights, overhead, KV cache blocks.

Sizes are GiB per GPU unless a name ends in bytes. The latent KV cache has one head, so every GPU of a tensor parallel
group holds all of it. Blocks are counted as vLLM's own planner does (v1/core/kv_cache_utils.py);
qualification/calibration runs it.
The overhead (runtime, CUDA graphs, activations, buffers) is a model with fitted numbers, stated at each;
docs/explanation/memory.md explains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

GIB = 1 << 30
BLOCK_TOKENS = 256

FIXED_GIB = 2.04
"""CUDA context, NCCL, CUDA graphs, 0.5 GiB of indexer logits: what 2 x H200 left of 0.80 x 139.80 - 78.78 of weights
- 30.17 of KV cache at 4,096 batched tokens, less the two terms below (vLLM 0.32.0, 2026-11-22)."""
ACTIVATIONS_GIB = 0.2
"""For each 1,024 batched tokens: 30.8 GiB of KV cache at 8,192, 29.1 at 16,384 (2 x H200, an earlier vLLM, 2026-05)."""
GRAPH_GIB, GRAPH_TOKENS_GIB = 0.018, 0.093
"""For each CUDA graph, and for each 1,024 tokens of all of them, beyond those of FIXED_GIB: fitted to vLLM's figures,
0.61, 1.14, 2.30, 3.43 GiB for 11, 23, 51, 35 sizes to 64, 512, 512, 4,096 tokens (H200, vLLM 0.32.0, 2026-11-22)."""
_FIXED_GRAPHS: tuple[int, ...] = (1, 2, 4, *range(8, 65, 8))
"""Tokens of the CUDA graphs that FIXED_GIB contains."""

_PAGE = 37_440
"""64 entries of 584 bytes (448 FP8, 64 BF16, 8 of scales), to a multiple of 576: compressed by 4, or sliding window."""
_INDEX_PAGE, _SPARSE_PAGE = 8_640, 1_728
"""64 keys of the indexer at 132 bytes, and 2 entries that are compressed by 128; both to a multiple of 576."""


@dataclass(frozen=True)
class CacheLayout:
    """Layers that compress by 4 and by 128, and in how many groups vLLM puts all layers' sliding windows."""

    by_4: int
    by_128: int
    window_groups: int = 2

    @property
    def block_bytes(self) -> int:
        """Bytes of a block of 256 tokens: the widest group, which is the compressed cache; the draft's fits in it."""
        return self.by_4 * (_PAGE + _INDEX_PAGE) + self.by_128 * _SPARSE_PAGE

    def recent_blocks(self, tokens: int, context: int) -> int:
        """Return the blocks that hold windows and half-compressed groups while `tokens` of a request are in flight."""
        return (
            _windowed(8, 4, tokens, context)
            + _windowed(128, 8, tokens, context)
            + self.window_groups * _windowed(128, 64, tokens, context)
        )


CACHE_LAYOUTS = {
    "deepseek-v4-flash": CacheLayout(21, 20),
    "deepseek-v4-flash-vision": CacheLayout(21, 20),
    "deepseek-v4-pro": CacheLayout(30, 31),
}


@dataclass(frozen=True)
class MemoryEstimate:
    """The inputs of a plan's memory; `context` is 0 if vLLM decides it."""

    memory_gib: float
    utilization: float
    checkpoint_gib: float
    replicated_gib: float
    tensor_parallel_size: int
    layout: CacheLayout | None
    context: int
    batched_tokens: int
    requests: int
    draft_tokens: int = 1
    asynchronous: bool = True
    gathers: bool = True
    """Whether prefill gathers its keys in a buffer: FlashMLA does (SM 9.0 and 10.x), FlashInfer does not (SM 12.x)."""
    fixed_gib: float = FIXED_GIB
    """What is there whatever the plan asks for."""
    workspace_factor: int = 0
    """vLLM's `attention-config.sparse_mla_prefill_workspace_factor`; 0 if vLLM decides it."""
    kv_cache_memory_gib: float | None = None
    """The KV cache's size, if `kv-cache-memory-bytes` sets it."""
    tensor_parallel_sizes: tuple[int, ...] = ()
    graphs: tuple[int, ...] = ()
    """The sizes of CUDA graphs that the plan sets, in tokens; empty if vLLM decides them."""

    @property
    def weights_gib(self) -> float:
        """The weights on each GPU."""
        return weights_gib(self.checkpoint_gib, self.replicated_gib, self.tensor_parallel_size)

    @property
    def workspace_gib(self) -> float:
        """Buffers that vLLM reserves for the context: the indexer's keys, or the keys that prefill gathers."""
        factor = self.workspace_factor or (5 if self.context <= 256 * 1024 else 2)
        keys = self.context * 8 * factor // 4 * 132
        gathered = 4 * (ceil(self.context / 4) + 128 + self.batched_tokens) * 1024 if self.gathers else 0
        return max(keys, gathered) / GIB

    @property
    def overhead_gib(self) -> float:
        """What a GPU needs in addition to weights and KV cache."""
        sizes, tokens = len(self.graphs) - len(_FIXED_GRAPHS), sum(self.graphs) - sum(_FIXED_GRAPHS)
        graphs = max(0.0, GRAPH_GIB * sizes + GRAPH_TOKENS_GIB * tokens / 1024)
        return self.fixed_gib + graphs + ACTIVATIONS_GIB * self.batched_tokens / 1024 + self.workspace_gib

    @property
    def kv_available_gib(self) -> float:
        """What remains for the KV cache; negative where the weights alone do not fit."""
        if self.kv_cache_memory_gib is not None:
            return self.kv_cache_memory_gib
        return self.memory_gib * self.utilization - self.weights_gib - self.overhead_gib

    @property
    def sized(self) -> bool:
        """Whether requests can be counted: the layout, the context and the batch are known."""
        return self.layout is not None and self.context > 0 and self.batched_tokens > 0

    @property
    def in_flight(self) -> int:
        """The most tokens that are scheduled and not yet settled: two steps with asynchronous scheduling."""
        return self.batched_tokens * (2 if self.asynchronous else 1)

    @property
    def blocks(self) -> int:
        """Blocks of the pool; vLLM reserves one of them."""
        return max(0, int(self.kv_available_gib * GIB) // self._layout.block_bytes)

    @property
    def blocks_per_request(self) -> int:
        """Blocks that vLLM counts for a full-length request, as if it had a whole step in flight alone."""
        return ceil(self.context / BLOCK_TOKENS) + self._layout.recent_blocks(self.in_flight, self.context)

    @property
    def concurrency(self) -> float:
        """vLLM's `Maximum concurrency`: all blocks divided by the blocks of one request."""
        return self.blocks / self.blocks_per_request

    @property
    def admits(self) -> bool:
        """Whether vLLM starts: one full-length request must fit."""
        return self.blocks - 1 >= self.blocks_per_request

    @property
    def steady_state_requests(self) -> int:
        """
        Return how many full-length requests run at once when one of them is in prefill and the others decode.

        A step's tokens are shared, so only the one in prefill holds what vLLM counts for each; the admission of
        the last one needs as much (scheduler_reserve_full_isl).
        """
        return max(0, 1 + (self.blocks - 1 - self.blocks_per_request) // self._settled_blocks) if self.admits else 0

    @property
    def request_gib(self) -> float:
        """KV cache that one full-length request needs."""
        return (self.blocks_per_request + 1) * self._layout.block_bytes / GIB

    @property
    def requests_gib(self) -> float:
        """KV cache that all requests need at full length, one of them in prefill."""
        return self.request_gib + (self.requests - 1) * self._settled_blocks * self._layout.block_bytes / GIB

    @property
    def _settled_blocks(self) -> int:
        """Blocks of a full-length request that decodes."""
        step = (1 + self.draft_tokens) * (2 if self.asynchronous else 1)
        return ceil(self.context / BLOCK_TOKENS) + self._layout.recent_blocks(step, self.context)

    @property
    def _layout(self) -> CacheLayout:
        assert self.layout is not None
        return self.layout


def weights_gib(total: float, replicated: float, tensor_parallel_size: int) -> float:
    """Return the weights on each GPU: the replicated part, and a share of the rest."""
    return (total - replicated) / tensor_parallel_size + replicated


def _windowed(window: int, block: int, tokens: int, context: int) -> int:
    """Return the blocks of a sliding window with `tokens` in flight; one more, as a window may start within a block."""
    return ceil(min(window - 1 + tokens, context) / block) + 1
