"""How much is asked of a machine: little where Triton's kernels run in its interpreter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Sizes:
    """Tokens and requests. Lengths beyond the plan's context are left out."""

    prompts: tuple[int, ...] = (5, 130, 600, 2300)
    """Prompts with a known answer: within a window, beyond it, and beyond what the indexer chooses from."""
    answer: int = 48
    requests: int = 64
    """Requests at once at most."""
    load_prompts: tuple[int, ...] = (5, 700, 40, 2300, 130, 1200, 16, 300)
    """One for each different request under load."""
    load_answers: tuple[int, ...] = (2048, 256, 1024, 64)
    """As many tokens does one after the other decode; they end at different times, so batches of all sizes occur."""
    depths: tuple[float, ...] = (0.02, 0.1, 0.25, 0.5, 0.95)
    """Shares of the plan's context."""
    shallowest: int = 300
    """Tokens of the shortest deep prompt."""
    deepest: int = 1 << 20
    depth_answer: int = 16
    streams: int = 4
    """Requests that run while an engine is stopped."""

    @classmethod
    def cpu(cls) -> Self:
        """Return what two cores answer within minutes (vLLM 0.32.0 for CPU)."""
        return cls(
            prompts=(5, 130),
            answer=16,
            requests=4,
            load_prompts=(5, 140, 40, 16),
            load_answers=(48, 8, 24, 16),
            depths=(0.1, 0.6),
            deepest=2500,
            depth_answer=8,
            streams=1,
        )
