"""
Which --kv-cache-dtype DeepSeek-V4.1's attention takes, as vLLM 0.32.0 decides when it builds the layers. Pure.

For DeepSeek-V4, `kernels` has vLLM's own answers. Read in models/deepseek_v41: `_select_dsv4_attn_cls`
(nvidia/model.py), `_resolve_dsv4_kv_cache_dtype` (attention.py), `supports_combination` (nvidia/flashinfer_sparse.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..plan import Setting
from ..problem import Problem
from .kernels import CACHE
from .select import Selection

_PLAIN = ("auto", "bfloat16", "fp8", "fp8_e4m3")
"""Rows in one type: FlashInfer's attention on SM 10.x."""
_FLASHINFER = ("flashinfer_mla_sparse_dsv4", "flashinfer_mla_sparse_dsv41")


def violations(selection: Selection, flags: Mapping[str, Setting]) -> Iterator[tuple[str, str, Problem]]:
    """Yield a cache type that the attention does not take: vLLM would end while it builds the model."""
    kind, capability = str(selection.model.get("architecture")), str(selection.hardware.get("compute_capability"))
    cache = flags.get("kv-cache-dtype")
    if not capability or not kind.startswith("deepseek-v4.1") or cache is None:
        return
    backend = flags.get("attention-backend") or flags.get("attention-config.backend")
    named = str(backend.value).lower() if backend else ""
    allowed = _allowed(capability.startswith("10."), named)
    if str(cache.value) not in allowed:
        seen = f"vLLM 0.32.0: its attention has no {cache.value} cache on SM {capability}"
        where = f"{selection.model.name} on {selection.hardware.name}"
        yield CACHE, where, Problem(seen, "", f"set --{CACHE} fp8")


def _allowed(is_sm_10: bool, backend: str) -> tuple[str, ...]:
    if is_sm_10 and backend in _FLASHINFER:
        return _PLAIN
    return ("auto", "fp8", "fp8_ds_mla", "nvfp4_ds_mla") if is_sm_10 else ("auto", "fp8", "fp8_ds_mla")
