"""
How much memory a plan takes on each GPU, as vLLM 0.32.0 counts it: weights, overhead, KV cache blocks.

Sizes are GiB per GPU unless a name ends in bytes. The blocks are exact (cache_layout.py), the overhead is a model
(overhead.py), and `uncertainty_gib` says how far the answer carries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, hypot

from . import overhead
from .cache_layout import BLOCK_TOKENS, CACHE_LAYOUTS, CacheLayout
from .host_cache import HostCache
from .overhead import GIB, H200, Overhead

__all__ = ["BLOCK_TOKENS", "CACHE_LAYOUTS", "GIB", "CacheLayout", "MemoryEstimate", "weights_gib"]


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
    """Full-length requests at once that the plan promises of each data parallel replica."""
    sequences: int = 0
    """`max-num-seqs`."""
    draft_tokens: int = 1
    draft_logits: bool = False
    """Whether vLLM keeps the logits of drafts (`draft_sample_method` probabilistic)."""
    asynchronous: bool = True
    gathers: bool = True
    """Whether prefill gathers its keys in a buffer: FlashMLA does (SM 9.0 and 10.x), FlashInfer does not (SM 12.x)."""
    overhead: Overhead = H200
    workspace_factor: int = 0
    """vLLM's `attention-config.sparse_mla_prefill_workspace_factor`; 0 if vLLM decides it."""
    kv_cache_memory_gib: float | None = None
    """The KV cache's size, if `kv-cache-memory-bytes` sets it."""
    tensor_parallel_sizes: tuple[int, ...] = ()
    graphs: tuple[int, ...] = ()
    """The sizes of the CUDA graphs that vLLM captures, in tokens; empty without graphs."""
    experts_gib: float = 0.0
    """Routed experts of all layers, which data parallel replicas share; a part of `checkpoint_gib`."""
    drafter_gib: float = 0.0
    """The drafter, a part of `checkpoint_gib`."""
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    expert_parallel: bool = False
    offloading_gib: float = 0.0
    """Host memory of each replica for copies of the KV cache."""
    offloading_copies: int = 1
    """Ranks that keep a copy of their own there."""
    node_replicas: int = 1
    """Data parallel replicas on one host."""
    not_counted: tuple[str, ...] = ()
    """What the plan asks for and this count leaves out."""

    @property
    def weights_gib(self) -> float:
        """
        The weights on each GPU: experts over all replicas, the rest over one, and what every GPU holds whole.

        Of pipeline stages it is the last one, which has the drafter.
        """
        elsewhere = self.experts_gib * (1 - 1 / self.data_parallel_size) / self.tensor_parallel_size
        whole = weights_gib(self.checkpoint_gib, self.replicated_gib, self.tensor_parallel_size) - elsewhere
        drafter = self.drafter_gib / self.tensor_parallel_size
        return (whole - drafter) / self.pipeline_parallel_size + drafter

    @property
    def graphs_gib(self) -> float:
        """What CUDA graphs take."""
        return overhead.graphs_gib(self.overhead, self.graphs)

    @property
    def activations_gib(self) -> float:
        """What a whole step takes while it is computed."""
        return overhead.activations_gib(self.overhead, self.batched_tokens)

    @property
    def sequences_gib(self) -> float:
        """Buffers that grow with `max-num-seqs`."""
        return overhead.sequences_gib(self.sequences, self.draft_tokens, draft_logits=self.draft_logits)

    @property
    def workspace_gib(self) -> float:
        """Buffers that vLLM reserves for the context."""
        return overhead.workspace_gib(self.context, self.batched_tokens, self.workspace_factor, gathers=self.gathers)

    @property
    def overhead_gib(self) -> float:
        """What a GPU needs in addition to weights and KV cache."""
        parts = (self.graphs_gib, self.activations_gib, self.sequences_gib, self.workspace_gib)
        return self.overhead.fixed + sum(parts)

    @property
    def uncertainty_gib(self) -> float:
        """By how many GiB the KV cache may be larger or smaller; 0 where its size is set."""
        if self.kv_cache_memory_gib is not None:
            return 0.0
        other_shape = self.expert_parallel or max(self.pipeline_parallel_size, self.data_parallel_size) > 1
        return hypot(
            self.overhead.spread,
            overhead.SHAPE_GIB if other_shape else 0.0,
            self.overhead.share * (self.graphs_gib + self.activations_gib),
            overhead.SHARE_OF_WEIGHTS * self.weights_gib,
            overhead.SHARE_OF_REQUESTS * self.sequences_gib,
        )

    @property
    def kv_available_gib(self) -> float:
        """What remains for the KV cache; negative where the weights alone do not fit."""
        if self.kv_cache_memory_gib is not None:
            return self.kv_cache_memory_gib
        return self.memory_gib * self.utilization - self.weights_gib - self.overhead_gib

    @property
    def at_best(self) -> MemoryEstimate:
        """The same plan with the largest KV cache that the uncertainty allows."""
        return replace(self, kv_cache_memory_gib=self.kv_available_gib + self.uncertainty_gib)

    @property
    def at_worst(self) -> MemoryEstimate:
        """The same plan with the smallest KV cache that the uncertainty allows."""
        return replace(self, kv_cache_memory_gib=self.kv_available_gib - self.uncertainty_gib)

    @property
    def sized(self) -> bool:
        """Whether requests can be counted: the layout, the context and the batch are known."""
        return self.layout is not None and self.context > 0 and self.batched_tokens > 0

    @property
    def in_flight(self) -> int:
        """The most tokens scheduled and not yet settled: a step for each stage, and one more with async scheduling."""
        return self.batched_tokens * self._steps

    @property
    def blocks(self) -> int:
        """Blocks of the pool; vLLM reserves one of them."""
        return max(0, int(self.kv_available_gib * GIB) // self.layout_here.block_bytes)

    @property
    def blocks_per_request(self) -> int:
        """Blocks that vLLM counts for a full-length request, as if it had a whole step in flight alone."""
        return ceil(self.context / BLOCK_TOKENS) + self.layout_here.recent_blocks(self.in_flight, self.context)

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
        return (self.blocks_per_request + 1) * self.layout_here.block_bytes / GIB

    @property
    def requests_gib(self) -> float:
        """KV cache that all requests need at full length, one of them in prefill."""
        return self.request_gib + (self.requests - 1) * self._settled_blocks * self.layout_here.block_bytes / GIB

    @property
    def host_cache(self) -> HostCache | None:
        """What host memory keeps of the KV cache; None without offloading."""
        if not self.offloading_gib:
            return None
        layout = self.layout_here
        return HostCache(self.offloading_gib, layout.block_bytes, layout.window_blocks, self.offloading_copies)

    @property
    def _settled_blocks(self) -> int:
        """Blocks of a full-length request that decodes."""
        step = (1 + self.draft_tokens) * self._steps
        return ceil(self.context / BLOCK_TOKENS) + self.layout_here.recent_blocks(step, self.context)

    @property
    def _steps(self) -> int:
        return self.pipeline_parallel_size + (1 if self.asynchronous else 0)

    @cached_property
    def layout_here(self) -> CacheLayout:
        """The cache of one GPU: of its pipeline stage."""
        assert self.layout is not None
        return self.layout.stage(self.pipeline_parallel_size)


def weights_gib(total: float, replicated: float, tensor_parallel_size: int) -> float:
    """Return the weights on each GPU: the replicated part, and a share of the rest."""
    return (total - replicated) / tensor_parallel_size + replicated
