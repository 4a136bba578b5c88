"""
Folders of DeepSeek-V4-Flash at full size: the published names, shapes and dtypes, and data that takes no disk.

A file of 150 GiB is sparse; its header has 35,000 tensors or more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.checkpoints import DSPARK, FLASH_IDS, NATIVE, SHARD, Stored, compressed, write

HIDDEN, VOCABULARY, INNER, EXPERTS, HEADS, LAYERS, HASHED = 4096, 129_280, 2048, 256, 64, 43, 3
RATIOS = [0, 0, *([4, 128] * 20), 4, 0]
CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS, "num_hash_layers": HASHED, "num_nextn_predict_layers": 1, "expert_dtype": "fp4",
    "n_routed_experts": EXPERTS, "n_shared_experts": 1, "num_experts_per_tok": 6, "moe_intermediate_size": INNER,
    "num_attention_heads": HEADS, "num_key_value_heads": 1, "head_dim": 512, "qk_rope_head_dim": 64,
    "q_lora_rank": 1024, "o_lora_rank": 1024, "o_groups": 8, "index_head_dim": 128, "index_n_heads": 64,
    "index_topk": 512, "hc_mult": 4, "hc_eps": 1e-6, "hc_sinkhorn_iters": 20, "sliding_window": 128,
    "compress_ratios": RATIOS, "compress_rope_theta": 160_000, "rope_theta": 10_000, "rms_norm_eps": 1e-6,
    "rope_scaling": {"type": "yarn", "factor": 16, "original_max_position_embeddings": 65_536}, "hidden_act": "silu",
    "swiglu_limit": 10.0, "norm_topk_prob": True, "topk_method": "noaux_tc", "scoring_func": "sqrtsoftplus",
    "tie_word_embeddings": False, "vocab_size": VOCABULARY, "quantization_config": NATIVE,
}  # fmt: skip


def _linear(name: str, rows: int, inputs: int, how: str) -> Stored:
    """The tensors of one projection."""
    blocks = [math.ceil(rows / 128), math.ceil(inputs / 128)]
    parts: dict[str, Stored] = {
        "bf16": {"weight": ("BF16", [rows, inputs])},
        "fp8": {"weight": ("F8_E4M3", [rows, inputs]), "scale": ("F8_E8M0", blocks)},
        "fp8-f32": {"weight": ("F8_E4M3", [rows, inputs]), "scale": ("F32", blocks)},
        "fp8-ct": {"weight": ("F8_E4M3", [rows, inputs]), "weight_scale": ("BF16", blocks)},
        "mxfp4": {"weight": ("I8", [rows, inputs // 2]), "scale": ("F8_E8M0", [rows, inputs // 32])},
        "int4": {
            "weight_packed": ("I32", [rows, inputs // 8]),
            "weight_scale": ("BF16", [rows, inputs // 128]),
            "weight_shape": ("I64", [2]),
        },
    }
    return {f"{name}.{part}": shape for part, shape in parts[how].items()}


def _compressor(name: str, ratio: int, width: int, how: str) -> Stored:
    both = (2 if ratio == 4 else 1) * width
    stored: Stored = {f"{name}.ape": ("F32", [ratio, both]), f"{name}.norm.weight": ("BF16", [width])}
    for part in ("wkv", "wgate"):
        stored |= _linear(f"{name}.{part}", both, HIDDEN, how)
    return stored


def _layer(prefix: str, ratio: int, attention: str, experts: str, other: str) -> Iterator[Stored]:
    """The tensors of one layer but for its router's bias or table; `other` is how shared experts and compressors are."""
    norms = {"attn_norm": HIDDEN, "ffn_norm": HIDDEN, "attn.q_norm": 1024, "attn.kv_norm": 512}
    yield {f"{prefix}.{name}.weight": ("BF16", [size]) for name, size in norms.items()}
    for part in ("attn", "ffn"):
        yield {
            f"{prefix}.hc_{part}_{n}": ("F32", s) for n, s in (("fn", [24, 4 * HIDDEN]), ("base", [24]), ("scale", [3]))
        }
    shapes = {"wq_a": (1024, HIDDEN), "wq_b": (HEADS * 512, 1024), "wkv": (512, HIDDEN)}
    shapes |= {"wo_a": (8 * 1024, HEADS * 512 // 8), "wo_b": (HIDDEN, 8 * 1024)}
    for name, (rows, inputs) in shapes.items():
        yield _linear(f"{prefix}.attn.{name}", rows, inputs, attention)
    yield {f"{prefix}.attn.attn_sink": ("F32", [HEADS]), f"{prefix}.ffn.gate.weight": ("BF16", [EXPERTS, HIDDEN])}
    if ratio:
        yield _compressor(f"{prefix}.attn.compressor", ratio, 512, other)
    if ratio == 4:
        yield _linear(f"{prefix}.attn.indexer.wq_b", 64 * 128, 1024, attention)
        yield {f"{prefix}.attn.indexer.weights_proj.weight": ("BF16", [64, HIDDEN])}
        yield _compressor(f"{prefix}.attn.indexer.compressor", 4, 128, other)
    modules = [(f"experts.{expert}", experts) for expert in range(EXPERTS)]
    for module, how in [*modules, ("shared_experts", attention if attention != "fp8-ct" else "bf16")]:
        for name, rows, inputs in (("w1", INNER, HIDDEN), ("w3", INNER, HIDDEN), ("w2", HIDDEN, INNER)):
            yield _linear(f"{prefix}.ffn.{module}.{name}", rows, inputs, how)


def _head(prefix: str) -> Stored:
    return {f"{prefix}hc_head_{n}": ("F32", s) for n, s in (("fn", [4, 4 * HIDDEN]), ("base", [4]), ("scale", [1]))}


def _drafter(kind: str, attention: str, experts: str) -> Iterator[Stored]:
    for layer in range({"mtp": 1, "dspark": 3}.get(kind, 0)):
        yield from _layer(f"mtp.{layer}", 0, attention, experts, "bf16")
        yield {f"mtp.{layer}.ffn.gate.bias": ("F32", [EXPERTS])}
    if kind == "mtp":
        yield _linear("mtp.0.e_proj", HIDDEN, HIDDEN, attention) | _linear("mtp.0.h_proj", HIDDEN, HIDDEN, attention)
        yield {f"mtp.0.{name}.weight": ("BF16", [HIDDEN]) for name in ("enorm", "hnorm", "norm")} | _head("mtp.0.")
    if kind == "dspark":
        yield _linear("mtp.0.main_proj", HIDDEN, 3 * HIDDEN, attention) | _head("mtp.2.")
        yield {f"mtp.{name}.weight": ("BF16", [HIDDEN]) for name in ("0.main_norm", "2.norm")}
        yield {f"mtp.2.markov_head.markov_w{n}.weight": ("BF16", [VOCABULARY, 256]) for n in (1, 2)}


def _flash(attention: str, experts: str, other: str, drafter: str, draft: tuple[str, str] = ("", "")) -> Stored:
    stored: Stored = {name: ("BF16", [VOCABULARY, HIDDEN]) for name in ("embed.weight", "head.weight")}
    stored |= {"norm.weight": ("BF16", [HIDDEN])} | _head("")
    for layer in range(LAYERS):
        for part in _layer(f"layers.{layer}", RATIOS[layer], attention, experts, other):
            stored |= part
        router: Stored = {"tid2eid": ("I64", [VOCABULARY, 6])} if layer < HASHED else {"bias": ("F32", [EXPERTS])}
        stored |= {f"layers.{layer}.ffn.gate.{name}": shape for name, shape in router.items()}
    for part in _drafter(drafter, *draft):
        stored |= part
    return stored


LAYOUTS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "flash-0731": (
        {**DSPARK, "dspark_target_layer_ids": FLASH_IDS}, ("fp8", "mxfp4", "bf16", "dspark", ("fp8", "mxfp4")),
    ),
    "flash-base": ({"expert_dtype": "fp8"}, ("fp8-f32", "fp8-f32", "bf16", "mtp", ("fp8-f32", "fp8-f32"))),
    "w4a16-undrafted": ({"quantization_config": compressed(4, "int")}, ("fp8-ct", "int4", "fp8-ct", "")),
}  # fmt: skip
"""Fields of config.json that differ, and how the tensors are stored."""


def folder(place: Path, layout: str) -> Path:
    """Write a layout, with a tokenizer of no words."""
    changes, how = LAYOUTS[layout]
    write(place, {**CONFIG, **changes}, _flash(*how))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / name).write_text(json.dumps({}))
    assert (place / SHARD).stat().st_blocks * 512 < 64 << 20  # sparse
    return place
