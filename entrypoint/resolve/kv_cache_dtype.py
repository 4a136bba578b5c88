"""
Which --kv-cache-dtype the attention of a plan takes, as vLLM 0.32.0 decides when it builds the layers. Pure.

Read in models/deepseek_v4 and deepseek_v41: `_select_dsv4_attn_cls` (nvidia/model.py), `_resolve_dsv4_kv_cache_dtype`
(attention.py) and `supports_combination` (nvidia/flashinfer_sparse.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..plan import Setting
from ..problem import Problem
from .select import Selection

RULE = "kv-cache-dtype"
"""The name of the constraint, for `--skip`."""
_PLAIN = ("auto", "bfloat16", "fp8", "fp8_e4m3")
"""Rows in one type: FlashInfer's attention on SM 10.x."""
_FLASHINFER = ("flashinfer_mla_sparse_dsv4", "flashinfer_mla_sparse_dsv41")


def violations(selection: Selection, flags: Mapping[str, Setting]) -> Iterator[tuple[str, str, Problem]]:
    """Yield a cache type that the attention does not take: vLLM would end while it builds the model."""
    kind, capability = str(selection.model.get("architecture")), str(selection.hardware.get("compute_capability"))
    cache = flags.get("kv-cache-dtype")
    if not capability or not kind.startswith("deepseek-v4") or cache is None:
        return
    backend = flags.get("attention-backend") or flags.get("attention-config.backend")
    named = str(backend.value).lower() if backend else ""
    allowed = _allowed(kind.startswith("deepseek-v4.1"), capability.startswith("10."), named)
    if str(cache.value) not in allowed:
        seen = f"its attention has no KV cache of type {cache.value} on SM {capability} in vLLM 0.32.0"
        yield RULE, f"model {selection.model.name}", Problem(seen, f"one of {', '.join(allowed)}", "leave it at fp8")


def _allowed(is_v41: bool, is_sm_10: bool, backend: str) -> tuple[str, ...]:
    if is_sm_10 and backend in _FLASHINFER:
        return _PLAIN
    if not is_v41:
        return ("auto", "fp8", "fp8_e4m3", "fp8_ds_mla")  # the third becomes the last
    return ("auto", "fp8", "fp8_ds_mla", "nvfp4_ds_mla") if is_sm_10 else ("auto", "fp8", "fp8_ds_mla")
