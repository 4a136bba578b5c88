"""Which attention backends, KV cache formats, block sizes and indexer formats vLLM starts with, by capability."""

import importlib
from types import SimpleNamespace
from typing import Any, get_args
from unittest import mock

import torch

from .platform import switch

MODEL, V41 = "vllm.models.deepseek_v4", "vllm.models.deepseek_v41"
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
OF_V41 = (*BACKENDS, "FLASHINFER_MLA_SPARSE_DSV41", "FLASHMLA_MEGA_ATTN_DSV41", "FLASHMLA_SPARSE_DSV41")
"""The same for DeepSeek-V4.1."""


def layer_class(backend: str, model: str = MODEL) -> Any:
    """Return the attention layer that a model takes for --attention-backend; ValueError where it takes none."""
    registry = importlib.import_module("vllm.v1.attention.backends.registry").AttentionBackendEnum
    chosen = None if backend == "auto" else registry[backend]
    select = importlib.import_module(f"{model}.nvidia.model")._select_dsv4_attn_cls
    return select(SimpleNamespace(attention_config=SimpleNamespace(backend=chosen)))


def cache_refusal(layer: Any, capability: Any, dtype: str, model: str = MODEL) -> str:
    """Return why a layer does not take --kv-cache-dtype: the layer resolves it, then its backend validates it."""
    resolve = importlib.import_module(f"{model}.attention")._resolve_dsv4_kv_cache_dtype
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


def of_v41() -> dict[str, Any]:
    """
    Return the KV cache formats of DeepSeek-V4.1 by attention backend, and why other backends end a start.

    On SM 10.x `auto` is mega attention or FlashMLA, by the heads of a rank: a format counts that either of them takes.
    """
    version = switch().get_device_capability()
    found: dict[str, Any] = {"refused": {}}
    kernels = importlib.import_module(f"{V41}.nvidia.flash_mla_mega_attn")
    mega = kernels.DeepseekV4MegaAttnAttention
    for backend in OF_V41:
        formats: set[str] = set()
        with mock.patch.object(kernels, "is_flashmla_mega_attn_supported", return_value=(version.major == 10, None)):
            for available in {False, version.major == 10}:
                with mock.patch.object(mega, "is_available_for", return_value=available):
                    try:
                        layer = layer_class(backend, V41)
                    except ValueError:
                        found["refused"][backend] = "scheme"
                        break
                if not layer.backend_cls.supports_compute_capability(version):
                    found["refused"][backend] = "device"
                    break
                formats |= {one for one in cache_formats() if not cache_refusal(layer, version, one, V41)}
            else:
                found[backend] = {"kv-cache-dtype": [one for one in cache_formats() if one in formats]}
    return found
