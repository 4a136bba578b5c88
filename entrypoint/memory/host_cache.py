"""
How many tokens of history vLLM 0.32.0's own KV offloading keeps in host memory.

Every group's block is copied whole, padding and all (distributed/kv_transfer/kv_connector/v1/offloading/worker.py: one
region for packed layouts). Of the compressed cache that is each block of 256 tokens; of windows and half-compressed
groups only those that a prompt's end needs. qualification/calibration/offloading.py runs vLLM's scheduler on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .cache_layout import BLOCK_TOKENS
from .overhead import GIB

_PAGE = 4096
"""A row of the region starts on a page of memory (v1/kv_offload/cpu/shared_offload_region.py)."""


@dataclass(frozen=True)
class HostCache:
    """Host memory of one data parallel replica; `copies` is 1 if all ranks have the same cache and share one copy."""

    gib: float
    block_bytes: int
    window_blocks: int
    copies: int = 1

    @property
    def row_bytes(self) -> int:
        """Bytes of a block, with those of all ranks that keep a copy of their own."""
        return ceil(self.block_bytes * self.copies / _PAGE) * _PAGE

    @property
    def blocks(self) -> int:
        """Blocks that it holds."""
        return int(self.gib * GIB) // self.row_bytes

    @property
    def bytes_per_token(self) -> float:
        """Bytes of a token of history, without its prompt's end."""
        return self.row_bytes / BLOCK_TOKENS

    def blocks_of(self, tokens: int) -> int:
        """Return the blocks of one history: its compressed cache, and the windows of its last prompt's end."""
        return tokens // BLOCK_TOKENS + self.window_blocks

    def bytes_of(self, tokens: int) -> int:
        """Return the bytes of one history."""
        return self.blocks_of(tokens) * self.row_bytes

    def conversations(self, tokens: int) -> int:
        """Return how many histories of so many tokens it holds."""
        return self.blocks // self.blocks_of(tokens)

    def longest(self) -> int:
        """Return the tokens of the longest history that it holds alone."""
        return max(0, self.blocks - self.window_blocks) * BLOCK_TOKENS
