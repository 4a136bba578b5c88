"""Fields of a config.json that have a type or a value with which vLLM cannot build a DeepSeek-V4. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from .described import number, text_config

CLASSES = {
    "DeepseekV4ForCausalLM": "deepseek_v4",
    "DeepseekV4ForConditionalGeneration": "deepseek_v4",
    "DeepseekV41ForCausalLM": "deepseek_v41",
}
"""The classes of vLLM 0.32.0 for DeepSeek-V4 and V4.1, and the model_type by which it reads their config.json."""
_SIZES = (
    "hc_mult", "hc_sinkhorn_iters", "head_dim", "hidden_size", "index_head_dim", "index_n_heads", "index_topk",
    "moe_intermediate_size", "n_routed_experts", "num_attention_heads", "num_experts_per_tok", "num_hidden_layers",
    "o_groups", "o_lora_rank", "q_lora_rank", "qk_rope_head_dim", "sliding_window", "vocab_size",
)  # fmt: skip
_COUNTS = ("n_shared_experts", "num_hash_layers", "num_nextn_predict_layers", "n_mtp_layers", "vision_n_layers")
"""They may be 0, and null stands for it."""
_NUMBERS = ("compress_rope_theta", "hc_eps", "rms_norm_eps", "routed_scaling_factor")
_LARGEST = 10_000_000
_MOST_OF_A_BLOCK, _MOST_TOKENS = 64, 1_000_000
"""Published drafters have blocks of 5, and a vocabulary of 129,280 tokens."""
_SHOWN = 40
_SCHEMES = ("dynamic", "static")
_EXPERT_DTYPES = ("fp4", "fp8")
"""What vLLM 0.32.0 takes as expert_dtype (models/deepseek_v4/quant_config.py)."""


def wrong(config: Mapping[str, Any]) -> list[str]:
    """Return each field that is there and cannot be used, as `name = value` or `no name`."""
    found = [*_of_any_model(config)]
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str) and names[0] in CLASSES:
        if (kind := config.get("model_type")) is not None and kind != CLASSES[names[0]]:
            found.append(_shown("model_type", kind))
        found += _of_deepseek_v4(text_config(config))
        found += _of_fp8(config)
    return found


def wrong_of_dspark(config: Mapping[str, Any]) -> list[str]:
    """Return each field that describes a DSpark drafter and is absent or out of range."""
    inner = text_config(config)
    layers, ids = number(inner, "num_hidden_layers"), inner.get("dspark_target_layer_ids")
    good = {
        "dspark_block_size": _is_within(inner.get("dspark_block_size"), 1, _MOST_OF_A_BLOCK),
        "dspark_noise_token_id": _is_within(inner.get("dspark_noise_token_id"), 0, _MOST_TOKENS),
        "dspark_markov_rank": _is_within(inner.get("dspark_markov_rank"), 1, number(inner, "hidden_size")),
        "dspark_target_layer_ids": (
            isinstance(ids, list) and bool(ids) and all(_is_within(n, 0, layers - 1) for n in ids)
        ),
    }
    return [_shown(name, inner[name]) if name in inner else f"no {name}" for name, fits in good.items() if not fits]


def _of_any_model(config: Mapping[str, Any]) -> Iterator[str]:
    names = config.get("architectures")
    if names is None:
        yield "no architectures"
    elif not (isinstance(names, list) and names and all(type(name) is str for name in names)):
        yield _shown("architectures", names)
    if "text_config" in config and not isinstance(config["text_config"], dict):
        yield _shown("text_config", config["text_config"])
    quantization = config.get("quantization_config")
    if quantization is None:
        return
    if not isinstance(quantization, dict):
        yield _shown("quantization_config", quantization)
        return
    method = quantization.get("quant_method")
    if method is None:
        yield "no quant_method in quantization_config"
    elif not isinstance(method, str) or not method or method != method.lower():
        yield _shown("quant_method", method)
    elif method == "compressed-tensors" and not _is_table_of_tables(quantization.get("config_groups")):
        yield _shown("config_groups", quantization.get("config_groups"))
    if not isinstance(quantization.get("moe_quant_algo", ""), str | None):
        yield _shown("moe_quant_algo", quantization["moe_quant_algo"])


def _of_deepseek_v4(config: Mapping[str, Any]) -> Iterator[str]:
    if "hidden_size" not in config:
        yield "no hidden_size"
    for name in _SIZES:
        if name in config and not _is_count(config[name], 1):
            yield _shown(name, config[name])
    for name in _COUNTS:
        if config.get(name) is not None and not _is_count(config[name], 0):
            yield _shown(name, config[name])
    for name in _NUMBERS:
        if name in config and not _is_positive(config[name]):
            yield _shown(name, config[name])
    if config.get("swiglu_limit") is not None and not _is_positive(config["swiglu_limit"]):
        yield _shown("swiglu_limit", config["swiglu_limit"])


def _of_fp8(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what DeepSeek's own format lacks: vLLM has no default for activation_scheme, and scales are by block."""
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict) or quantization.get("quant_method") not in ("fp8", "deepseek_v4_fp8"):
        return
    if "expert_dtype" in config and config["expert_dtype"] not in _EXPERT_DTYPES:
        yield _shown("expert_dtype", config["expert_dtype"])
    if quantization.get("activation_scheme") not in _SCHEMES:
        yield _shown("activation_scheme", quantization.get("activation_scheme"))
    block = quantization.get("weight_block_size")
    if not (isinstance(block, list) and len(block) == 2 and all(_is_count(size, 1) for size in block)):
        yield _shown("weight_block_size", block)


def _is_table_of_tables(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(one, dict) for one in value.values())


def _is_count(value: Any, least: int) -> bool:
    return _is_within(value, least, _LARGEST)


def _is_within(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _shown(name: str, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return f"{name} = {text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'}"
