"""Sizes of the random checkpoints."""

from ..v4_weights import HC, HEAD_DIM, ROPE_DIM, Dims

__all__ = ["HC", "HEAD_DIM", "INDEX_DIM", "ROPE_DIM", "SIZES", "WINDOW", "YARN_FACTOR"]

INDEX_DIM, WINDOW, YARN_FACTOR = 128, 128, 16
_SHARED = {"vocab": 128, "max_positions": 4096}
"""YaRN's original maximum is a sixteenth of `max_positions`, so that prompts of 300 tokens already see it."""
SIZES = {
    "tiny": Dims(experts=64, ratios=(0, 4, 128, 4), **_SHARED),
    "flash": Dims(
        hidden=4096, heads=64, q_lora=1024, o_groups=8, o_lora=1024, inter=2048, experts=16, ratios=(0, 4, 128, 4),
        **_SHARED,
    ),
}  # fmt: skip
"""`tiny` is for CPUs (64 experts are the fewest of vLLM's CPU router), `flash` has the widths of GPU kernels."""
