"""The packages that tiers of vLLM's KV offloading import, and vLLM does not bring."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping


def missing(modules: Iterable[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the modules that are missing; none where vLLM has a Python of its own, whose modules are not seen."""
    if environ.get("DSV4_VLLM") or not importlib.util.find_spec("vllm"):
        return ()
    return tuple(module for module in modules if not importlib.util.find_spec(module))
