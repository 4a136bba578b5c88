"""Match the targets of compressed-tensors in config.json against the routed experts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...checkpoint.read import Checkpoint

TODAY = ("w1", "w2", "w3")
UNTIL_0_31 = ("gate_proj", "up_proj", "down_proj")
"""Names of an expert's projections, in vLLM 0.32 and until 0.31."""


def targets(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield the targets of every group in quantization_config."""
    quantization = checkpoint.config.value.get("quantization_config")
    groups = quantization.get("config_groups") if isinstance(quantization, dict) else None
    for group in groups.values() if isinstance(groups, dict) else ():
        named = group.get("targets") if isinstance(group, dict) else None
        yield from map(str, named if isinstance(named, list) else ())


def name_experts(names: list[str], projections: tuple[str, ...]) -> bool:
    """Tell whether each of these projections of an expert is a target, as compressed-tensors matches them."""
    modules = [f"model.layers.0.ffn.experts.0.{projection}" for projection in projections]
    return all(any(_matches(name, module) for name in names) for module in modules)


def _matches(target: str, module: str) -> bool:
    if not target.startswith("re:"):
        return target == module
    try:
        return re.match(target[3:], module) is not None
    except re.error:
        return False
