"""
How vLLM 0.32.0 lays out DeepSeek-V4's KV cache: groups of layers that draw blocks of 256 tokens from one pool.

The latent cache has one head, so every GPU of a tensor parallel group holds all of it. Counted as vLLM's own planner
does (v1/core/kv_cache_utils.py); qualification/calibration runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

BLOCK_TOKENS = 256
POSITIONS = 1_048_576
"""`max_position_embeddings` of every DeepSeek-V4: no context is longer."""

FP8_PACKED, FP8_ROWS, BF16_ROWS = 584, 512, 1024
"""Bytes of an entry: 448 FP8, 64 BF16 and 8 of scales (`fp8_ds_mla`, all that FlashMLA and SM 12.x take), or plain
rows, which FlashInfer takes on SM 10.x."""
FP8_KEY, MXFP4_KEY = 132, 68
"""Bytes of a key of the indexer."""
_WINDOW_TOKENS = 64


@dataclass(frozen=True)
class CacheLayout:
    """
    Layers by what they compress, and in how many groups vLLM puts all layers' sliding windows.

    `plain` layers and those of the drafter have a sliding window only.
    """

    by_4: int
    by_128: int
    window_groups: int = 2
    plain: int = 0
    drafter: int = 0
    entry: int = FP8_PACKED
    key: int = FP8_KEY

    @property
    def block_bytes(self) -> int:
        """Bytes of a block: the widest group's. That is the compressed cache, if no other format makes it narrow."""
        return max(self._compressed, self._windows, self._states)

    @property
    def _compressed(self) -> int:
        by_4 = self._page(BLOCK_TOKENS // 4 * self.entry) + self._page(BLOCK_TOKENS // 4 * self.key)
        return self.by_4 * by_4 + self.by_128 * self._page(BLOCK_TOKENS // 128 * self.entry)

    @property
    def _windows(self) -> int:
        layers = self.by_4 + self.by_128 + self.plain + self.drafter
        return ceil(layers / self.window_groups) * self._page(_WINDOW_TOKENS * self.entry)

    @property
    def _states(self) -> int:
        """Half-compressed groups in FP32: 4 tokens of cache and indexer, or 8 of those that are compressed by 128."""
        by_4 = self.by_4 * (self._page(4 * 2048 * 4) + self._page(4 * 512 * 4))
        return max(by_4, self.by_128 * self._page(8 * 1024 * 4))

    def _page(self, size: int) -> int:
        unit = 576 if self.entry == FP8_PACKED else 512
        return ceil(size / unit) * unit

    def stage(self, stages: int) -> CacheLayout:
        """Return the layers of the largest of so many pipeline stages."""
        parts = {name: ceil(getattr(self, name) / stages) for name in ("by_4", "by_128", "plain")}
        return replace(self, **parts) if stages > 1 else self

    def recent_blocks(self, tokens: int, context: int) -> int:
        """Return the blocks that hold windows and half-compressed groups while `tokens` of a request are in flight."""
        return sum(_windowed(window, block, tokens, context) for window, block in self._recent)

    @property
    def window_blocks(self) -> int:
        """Blocks of windows and half-compressed groups with which a prompt goes on at its end; one more for drafts."""
        return sum(ceil((window - 1) / block) for window, block in self._recent) + (1 if self.drafter else 0)

    @property
    def _recent(self) -> tuple[tuple[int, int], ...]:
        """Groups that keep the last tokens only: how many, and tokens of a block."""
        return ((8, 4), (128, 8), *((128, _WINDOW_TOKENS),) * self.window_groups)


CACHE_LAYOUTS = {
    "deepseek-v4-flash": CacheLayout(21, 20, plain=2),
    "deepseek-v4-flash-vision": CacheLayout(21, 20, plain=2),
    "deepseek-v4-pro": CacheLayout(30, 31),
}


def _windowed(window: int, block: int, tokens: int, context: int) -> int:
    """Return the blocks of a sliding window with `tokens` in flight; one more, as a window may start within a block."""
    return ceil(min(window - 1 + tokens, context) / block) + 1
