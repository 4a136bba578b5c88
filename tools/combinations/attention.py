"""Which attention backends, KV cache formats, block sizes and indexer formats vLLM starts with, by capability."""

import importlib
from types import SimpleNamespace
from typing import Any, get_args
from unittest import mock

import torch

from .platform import switch

MODEL = "vllm.models.deepseek_v4"
BLOCK_SIZES = (1, 8, 16, 32, 64, 128, 256, 512, 1024)
TOP_K = (512, 1024)
"""Tokens that the indexer keeps (index_topk in config.json of DeepSeek-V4-Flash and -Pro)."""
BACKENDS = (
    "auto",
    "FLASHINFER_MLA_SPARSE",
    "FLASHINFER_MLA_SPARSE_DSV4",
    "FLASHINFER_MLA_SPARSE_SM120",
    "FLASHMLA_SPARSE",
    "FLASHMLA_SPARSE_DSV4",
)
"""Backends that DeepSeek-V4's own selection names; it takes every other one for auto (`_select_dsv4_attn_cls`)."""


def layer_class(backend: str) -> Any:
    """Return the attention layer that DeepSeek-V4 takes for --attention-backend; ValueError where it takes none."""
    registry = importlib.import_module("vllm.v1.attention.backends.registry").AttentionBackendEnum
    chosen = None if backend == "auto" else registry[backend]
    select = importlib.import_module(f"{MODEL}.nvidia.model")._select_dsv4_attn_cls
    return select(SimpleNamespace(attention_config=SimpleNamespace(backend=chosen)))


def cache_refusal(layer: Any, capability: Any, dtype: str) -> str:
    """Return why a layer does not take --kv-cache-dtype: the layer resolves it, then its backend validates it."""
    resolve = importlib.import_module(f"{MODEL}.attention")._resolve_dsv4_kv_cache_dtype
    try:
        resolved, _ = resolve(layer.use_fp8_ds_mla_layout, dtype, None)
    except ValueError as error:
        return str(error)
    reasons = layer.backend_cls.validate_configuration(
        head_size=512,
        dtype=torch.bfloat16,
        kv_cache_dtype=resolved,
        block_size=None,
        use_mla=True,
        has_sink=True,
        use_sparse=True,
        use_mm_prefix=False,
        use_per_head_quant_scales=False,
        device_capability=capability,
        attn_type="decoder",
    )
    return "; ".join(reasons)


def block_refusal(layer: Any, size: int) -> str:
    """Return why --block-size cannot be divided into the blocks of the attention's and the indexer's kernels."""
    select = importlib.import_module("vllm.v1.worker.utils").select_common_block_size
    indexer = importlib.import_module("vllm.v1.attention.backends.mla.indexer").DeepseekV4IndexerBackend
    try:
        select(size, [layer.backend_cls, indexer])
    except ValueError as error:
        return str(error)
    return ""


def indexer_refusal(dtype: str) -> str:
    """Return why the sparse indexer does not take attention-config.indexer_kv_dtype."""
    attention = importlib.import_module("vllm.config.attention").AttentionConfig(indexer_kv_dtype=dtype)
    uses_fp4 = importlib.import_module("vllm.v1.attention.backends.mla.indexer").dsa_indexer_uses_fp4
    try:
        uses_fp4(SimpleNamespace(attention_config=attention))
    except ValueError as error:
        return str(error)
    return ""


def topk_refusal(backend: str) -> str:
    """Return why the indexer does not take --sparse-indexer-topk-backend for one row of logits."""
    topk: Any = importlib.import_module("vllm.model_executor.layers.indexer_topk")
    logits = torch.zeros(1, 4096, dtype=torch.float32)
    try:
        with mock.patch.multiple(topk, _HAS_DEEP_SELECT_C=True, is_deep_select_supported=lambda *_: True):
            for number in TOP_K:
                topk.get_indexer_topk(backend).resolve_backend(logits, number, 1)
    except RuntimeError as error:
        return str(error)
    return ""


def topk_backends() -> list[str]:
    """Return the values of --sparse-indexer-topk-backend."""
    return list(get_args(importlib.import_module("vllm.config.kernel").SparseIndexerTopkBackend))


def cache_formats() -> list[str]:
    """Return the values of --kv-cache-dtype."""
    return list(get_args(importlib.import_module("vllm.config.cache").CacheDType))


def indexer_formats() -> list[str]:
    """Return the values of attention-config.indexer_kv_dtype."""
    return list(get_args(importlib.import_module("vllm.config.attention").IndexerKVDType))


def of_capability() -> dict[str, Any]:
    """Return the attention backends with their KV cache formats and block sizes, and the indexer's formats."""
    version = switch().get_device_capability()
    found: dict[str, Any] = {"refused": {}}
    for backend in BACKENDS:
        try:
            layer = layer_class(backend)
        except ValueError:
            found["refused"][backend] = "scheme"
            continue
        if not layer.backend_cls.supports_compute_capability(version):
            found["refused"][backend] = "device"
            continue
        found[backend] = {
            "kv-cache-dtype": [dtype for dtype in cache_formats() if not cache_refusal(layer, version, dtype)],
            "block-size": [size for size in BLOCK_SIZES if not block_refusal(layer, size)],
        }
    return found | {
        "indexer_kv_dtype": [dtype for dtype in indexer_formats() if not indexer_refusal(dtype)],
        "topk": [backend for backend in topk_backends() if not topk_refusal(backend)],
    }
