"""
Which experts dummy weights choose: random ones, by vLLM's simulated routing.

With the routing of dummy weights, 16 requests read at most 49 experts of a layer (2 x H200), with random routing 136; a
token takes 5.8 and 11.2 ms (half of W4A16 on one H200; vLLM 0.32.0, 2026-11-22).
"""

from __future__ import annotations

from ..doctor import installed_patches

VARIABLE = "VLLM_MOE_ROUTING_SIMULATION_STRATEGY"
RANDOM = "uniform_random"
"""Six experts at random for each token, which takes about 20 us a layer (H200, vLLM 0.32.0, 2026-11-30)."""
SPREAD = "uniform_spread"
"""One expert at random for each token and five at even distances; what that takes is unmeasured."""
PATCH = "simulate-random-routing-in-few-kernels"


def variables(compute_capability: str) -> dict[str, str]:
    """
    Return what routes each token to random experts, all equally likely, but nothing on SM 10.x.

    There vLLM 0.32.0 would choose kernels that route by themselves (trtllm_nvfp4_moe.py).
    """
    return {} if compute_capability.startswith("10.") else {VARIABLE: strategy()}


def strategy() -> str:
    """Return SPREAD where the installed vLLM has the patch, else RANDOM: vLLM ends at a strategy it does not know."""
    return SPREAD if installed_patches.has(PATCH) else RANDOM
