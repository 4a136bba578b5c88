"""How each published DeepSeek-V4 layout stores its tensors, and its `config.json`."""

from dataclasses import dataclass
from typing import Any

from . import v4_dspark
from . import v4_tensors as v4
from .v4_tensors import Encoder
from .v4_weights import HC, HEAD_DIM, ROPE_DIM, Dims

JSON = dict[str, Any]
ATTENTION = r"re:.*attn\.(wq_a|wq_b|wkv|wo_a|wo_b|fused_wqa_wkv|q_a_proj|q_b_proj|kv_proj|o_a_proj|o_b_proj)$"
COMPRESSOR = r"re:.*attn\.(compressor|indexer)\..*(wkv|wgate|wq_b|weights_proj|fused_wkv_wgate)$"
EXPERTS = r"re:.*experts\.\d+\.(w1|w2|w3|gate_proj|up_proj|down_proj|gate_up_proj)$"
NVFP4_ATTENTION = r"re:.*\.attn\.(fused_wqa_wkv|compressor\.fused_wkv_wgate|wq_b|wo_a|wo_b)$"
NVFP4_EXPERTS = r"re:.*\.ffn\.experts\.\d+\.(gate_proj|up_proj|down_proj)$"


@dataclass(frozen=True)
class Storage:
    """Encoders by the role of a weight; `indexer_q` is the one indexer weight that the native layout keeps in FP8."""

    attention: Encoder = v4.encode_bf16
    experts: Encoder = v4.encode_bf16
    shared: Encoder = v4.encode_bf16
    compressor: Encoder = v4.encode_bf16
    indexer_q: Encoder = v4.encode_bf16
    projections: Encoder = v4.encode_bf16

    @property
    def fp8(self) -> frozenset[str]:
        """The roles that are stored in FP8."""
        return frozenset(role for role, encode in vars(self).items() if encode in (v4.encode_fp8, _FP8))


@dataclass(frozen=True)
class Layout:
    """
    Storage of target model and draft head; `aliases` are the draft's own copies of embedding and head.

    `drafter` is `mtp` or `dspark`.
    """

    target: Storage
    draft: Storage
    head_f32: bool = False
    aliases: bool = False
    drafter: str = "mtp"


_NATIVE = Storage(v4.encode_fp8, v4.encode_mxfp4, v4.encode_fp8, v4.encode_bf16, v4.encode_fp8, v4.encode_fp8)
_PRO = Storage(v4.encode_fp8, v4.encode_nvfp4_modelopt, v4.encode_fp8, v4.encode_bf16, v4.encode_fp8, v4.encode_fp8)
_FP8 = v4.encode_fp8_bf16_scale
LAYOUTS = {
    "bf16": Layout(Storage(), Storage()),
    "native": Layout(_NATIVE, _NATIVE),
    "w4a16": Layout(Storage(_FP8, v4.encode_int4), Storage(), head_f32=True, aliases=True),
    "nvfp4": Layout(Storage(_FP8, v4.encode_nvfp4), Storage(), aliases=True),
    "acti": Layout(
        Storage(_FP8, v4.encode_int4, compressor=_FP8, indexer_q=_FP8),
        Storage(_FP8, v4.encode_int4),
    ),
    "pro": Layout(_PRO, _NATIVE),
    "flash-nvfp4": Layout(_PRO, _NATIVE),
    "flash-0731": Layout(_NATIVE, _NATIVE, drafter="dspark"),
    "flash-0731-nvfp4": Layout(_PRO, _NATIVE, drafter="dspark"),
}
MODELOPT = ("flash-nvfp4", "flash-0731-nvfp4")
"""NVIDIA's own; `pro` is of the same scheme and lacks most of its description."""


def config(layout: str, dims: Dims) -> JSON:
    """The published config.json of a layout, with this checkpoint's sizes."""
    d: JSON = {
        "architectures": ["DeepseekV4ForCausalLM"],
        "model_type": "deepseek_v4",
        "torch_dtype": "bfloat16",
        "vocab_size": dims.vocab,
        "hidden_size": dims.hidden,
        "moe_intermediate_size": dims.inter,
        "num_hidden_layers": dims.layers,
        "num_hash_layers": dims.hash_layers,
        "num_attention_heads": dims.heads,
        "num_key_value_heads": 1,
        "head_dim": HEAD_DIM,
        "qk_rope_head_dim": ROPE_DIM,
        "q_lora_rank": dims.q_lora,
        "o_groups": dims.o_groups,
        "o_lora_rank": dims.o_lora,
        "sliding_window": 128,
        "n_routed_experts": dims.experts,
        "n_shared_experts": 1,
        "num_experts_per_tok": dims.top_k,
        "scoring_func": "sqrtsoftplus",
        "topk_method": "noaux_tc",
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.5,
        "hidden_act": "silu",
        "swiglu_limit": 10.0,
        "index_n_heads": dims.index_heads,
        "index_head_dim": 128,
        "index_topk": dims.index_topk,
        "hc_mult": HC,
        "hc_sinkhorn_iters": 20,
        "hc_eps": 1e-6,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000,
        "compress_rope_theta": 160000,
        "max_position_embeddings": dims.max_positions,
        "num_nextn_predict_layers": 1,
        "compress_ratios": [*dims.ratios, 0],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "attention_dropout": 0.0,
    }
    d["rope_scaling"] = {
        "type": "yarn", "factor": 16, "original_max_position_embeddings": dims.max_positions // 16,
        "beta_fast": 32, "beta_slow": 1,
    }  # fmt: skip
    if LAYOUTS[layout].drafter == "dspark":
        d["compress_ratios"] = [*dims.ratios, *[0] * v4_dspark.LAYERS]
        d["dspark_block_size"] = v4_dspark.BLOCK_SIZE
        d["dspark_markov_rank"] = v4_dspark.RANK
        d["dspark_noise_token_id"] = v4_dspark.NOISE
        d["dspark_target_layer_ids"] = list(v4_dspark.target_layers(dims))
    if layout != "bf16":
        d["expert_dtype"] = "fp4"
        d["quantization_config"] = _quantization(layout, dims)
    return d


def _quantization(layout: str, dims: Dims) -> JSON:
    if LAYOUTS[layout].target in (_NATIVE, _PRO):
        config: JSON = {
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "scale_fmt": "ue8m0",
            "weight_block_size": [128, 128],
        }
        return config | _modelopt(layout, dims)
    groups = {
        "w4a16": {"group_0": _fp8([ATTENTION]), "group_1": _int4()},
        "nvfp4": {"group_0": _fp8([NVFP4_ATTENTION]), "group_1": _nvfp4()},
        "acti": {"group_0": _fp8([ATTENTION, COMPRESSOR]), "group_1": _int4()},
    }[layout]
    return {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "quantization_status": "compressed",
        "scale_fmt": "ue8m0",
        "config_groups": groups,
        "ignore": _ignore(layout, dims),
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _modelopt(layout: str, dims: Dims) -> JSON:
    algorithm = {"moe_quant_algo": "NVFP4"} if LAYOUTS[layout].target is _PRO else {}
    if layout not in MODELOPT:
        return algorithm
    experts = {"quant_algo": "NVFP4", "group_size": 16}
    return algorithm | {
        "quant_algo": "MIXED_PRECISION",
        "group_size": 16,
        "kv_cache_quant_algo": None,
        "ignore": ["*.attn.*", "*.ffn.shared_experts.*", "head", "mtp.*"],
        "quantized_layers": {f"layers.{n}.ffn.experts": experts for n in range(dims.layers)},
        "producer": {"name": "modelopt"},
    }


def _ignore(layout: str, dims: Dims) -> list[str]:
    ignore = ["lm_head", "head", r"re:.*mtp\..*"]
    if layout == "w4a16":
        compressed = [n for n, ratio in enumerate(dims.ratios) if ratio]
        ignore += [f"layers.{n}.attn.compressor.{w}" for n in compressed for w in ("wkv", "wgate", "fused_wkv_wgate")]
    if layout == "acti":
        parts = ["e_proj", "h_proj", "shared_head.head", *(f"ffn.shared_experts.{w}" for w in ("w1", "w2", "w3"))]
        shared = [f"mtp_block.ffn.shared_experts.{w}" for w in ("w1", "w2", "w3", "gate_up_proj", "down_proj")]
        ignore += [f"layers.{dims.layers}.{part}" for part in (*parts, *shared)]
    return ignore


def _fp8(targets: list[str]) -> JSON:
    weights = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128], "symmetric": True}
    inputs = {
        "num_bits": 8,
        "type": "float",
        "strategy": "group",
        "group_size": 128,
        "symmetric": True,
        "dynamic": True,
    }
    return {"targets": targets, "format": "float-quantized", "weights": weights, "input_activations": inputs}


def _int4() -> JSON:
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
    return {"targets": [EXPERTS], "format": "pack-quantized", "weights": weights, "input_activations": None}


def _nvfp4() -> JSON:
    weights = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True}
    return {
        "targets": [NVFP4_EXPERTS],
        "format": "nvfp4-pack-quantized",
        "weights": weights | {"dynamic": False},
        "input_activations": weights | {"dynamic": "local"},
    }
