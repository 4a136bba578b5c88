"""
Folders of the layouts that are published, small: the config.json that matters, an index, and one shard.

Names and dtypes are those of DeepSeek-V4; two experts and a few inputs stand for all. `LAYOUTS` names each folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "I32": 4, "I64": 8}
SHARD, INDEX = "model-00001-of-00001.safetensors", "model.safetensors.index.json"
Stored = dict[str, tuple[str, list[int]]]
INPUTS, OUTPUTS = 256, 128

HOW: dict[str, dict[str, tuple[str, list[int]]]] = {
    "bf16": {"weight": ("BF16", [OUTPUTS, INPUTS])},
    "fp8": {"weight": ("F8_E4M3", [OUTPUTS, INPUTS]), "scale": ("F8_E8M0", [1, 2])},
    "fp8-f32": {"weight": ("F8_E4M3", [OUTPUTS, INPUTS]), "scale": ("F32", [1, 2])},
    "mxfp4": {"weight": ("I8", [OUTPUTS, INPUTS // 2]), "scale": ("F8_E8M0", [OUTPUTS, 8])},
    "int4": {
        "weight_packed": ("I32", [OUTPUTS, 32]), "weight_scale": ("BF16", [OUTPUTS, 2]), "weight_shape": ("I64", [2]),
    },
    "nvfp4": {
        "weight_packed": ("U8", [OUTPUTS, INPUTS // 2]), "weight_scale": ("F8_E4M3", [OUTPUTS, 16]),
        "weight_global_scale": ("F32", [1]), "input_global_scale": ("F32", [1]),
    },
    "modelopt": {
        "weight": ("U8", [OUTPUTS, INPUTS // 2]), "weight_scale": ("F8_E4M3", [OUTPUTS, 16]),
        "weight_scale_2": ("F32", [1]), "input_scale": ("F32", [1]),
    },
    "int8": {"weight": ("I8", [OUTPUTS, INPUTS]), "weight_scale": ("BF16", [OUTPUTS, 1])},
    "gptq": {"qweight": ("I32", [32, OUTPUTS]), "qzeros": ("I32", [2, 16]), "scales": ("F16", [2, OUTPUTS])},
    "quark": {"weight": ("U8", [OUTPUTS, INPUTS // 2]), "weight_scale": ("U8", [OUTPUTS, 8])},
}  # fmt: skip
"""The tensors of one projection, by how it is stored."""

NATIVE = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
MODELOPT = {**NATIVE, "moe_quant_algo": "NVFP4", "ignore": ["*.attn.*", "head", "mtp.*"]}
DSPARK: dict[str, Any] = {"dspark_block_size": 5, "dspark_noise_token_id": 128799, "dspark_markov_rank": 256}
FLASH_IDS, PRO_IDS = [40, 41, 42], [58, 59, 60]


def compressed(bits: int, kind: str, activations: int | None = None) -> dict[str, Any]:
    """A quantization_config of compressed-tensors: FP8 attention, and experts of `bits`."""
    weights = {"num_bits": bits, "type": kind}
    acts = None if activations is None else {"num_bits": activations, "type": "float"}
    experts = {"targets": [r"re:.*experts\.\d+\.(w1|w2|w3)$"], "weights": weights, "input_activations": acts}
    attention = {"targets": ["re:.*attn.*"], "weights": {"num_bits": 8, "type": "float"}}
    groups = {"group_0": attention if bits == 4 else experts, "group_1": experts}
    return {"quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": groups}


def config(*, pro: bool = False, **changes: Any) -> dict[str, Any]:
    """The fields of config.json that tell a checkpoint apart; None takes one away."""
    fields: dict[str, Any] = {
        "architectures": ["DeepseekV4ForCausalLM"],
        "model_type": "deepseek_v4",
        "hidden_size": 7168 if pro else 4096,
        "num_hidden_layers": 61 if pro else 43,
        "num_nextn_predict_layers": 1,
        "expert_dtype": "fp4",
        "quantization_config": NATIVE,
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def tensors(layers: int, experts: str, drafter: str = "", draft: str = "", *, shares: bool = False) -> Stored:
    """The tensors of a checkpoint whose experts are stored in one way, and its drafter's in another."""
    stored: Stored = {"embed.weight": ("BF16", [8, 8]), "head.weight": ("BF16", [8, 8])}
    for prefix in (f"layers.{layer}" for layer in range(layers)):
        stored |= _block(prefix, experts)
    if drafter == "mtp":
        stored |= _block("mtp.0", draft)
        stored |= {f"mtp.0.{part}.weight": ("BF16", [8]) for part in ("e_proj", "h_proj", "enorm", "hnorm", "norm")}
    if drafter == "dspark":
        for layer in range(3):
            stored |= _block(f"mtp.{layer}", draft)
        last = ("norm", "markov_head.markov_w1", "markov_head.markov_w2", "confidence_head.proj")
        stored |= {f"mtp.0.{part}.weight": ("BF16", [8]) for part in ("main_proj", "main_norm")}
        stored |= {f"mtp.2.{part}.weight": ("BF16", [8]) for part in last}
    if shares:
        stored |= {"mtp.0.head.weight": ("F32", [8, 8]), "mtp.0.emb.tok_emb.weight": ("BF16", [8, 8])}
    return stored


def _block(prefix: str, how: str) -> Stored:
    block: Stored = {f"{prefix}.attn.wq_a.weight": ("F8_E4M3", [8, 8]), f"{prefix}.ffn.gate.weight": ("BF16", [8])}
    for expert in range(2):
        for projection in ("w1", "w2", "w3"):
            module = f"{prefix}.ffn.experts.{expert}.{projection}"
            block |= {f"{module}.{name}": shape for name, shape in HOW[how].items()}
    return block


def header(stored: Stored) -> bytes:
    """The header of a safetensors file, with its length."""
    entries, end = {}, 0
    for name, (dtype, shape) in stored.items():
        size = BYTES[dtype] * math.prod(shape)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def size(stored: Stored) -> int:
    """Bytes of these tensors."""
    return sum(BYTES[dtype] * math.prod(shape) for dtype, shape in stored.values())


def write(folder: Path, fields: dict[str, Any], stored: Stored | None, *, index: bool = True) -> Path:
    """Write a folder; without tensors, config.json alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if stored is None:
        return folder
    start = header(stored)
    with (folder / SHARD).open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size(stored))
    if index:
        weight_map = dict.fromkeys(stored, SHARD)
        text = json.dumps({"metadata": {"total_size": size(stored)}, "weight_map": weight_map}, indent=1)
        (folder / INDEX).write_text(text)
    return folder


def _flash(experts: str, drafter: str = "", draft: str = "", **fields: Any) -> Callable[[Path], Path]:
    shares = bool(fields.pop("shares", False))
    return lambda folder: write(folder, config(**fields), tensors(43, experts, drafter, draft, shares=shares))


def _pro(experts: str, drafter: str, **fields: Any) -> Callable[[Path], Path]:
    return lambda folder: write(folder, config(pro=True, **fields), tensors(61, experts, drafter, "mxfp4"))


def _gguf(folder: Path) -> Path:
    write(folder, config(quantization_config=None), None)
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF\x03\0\0\0")
    return folder


_FLASH_DSPARK = {**DSPARK, "dspark_target_layer_ids": FLASH_IDS}
_VISION = {"architectures": ["DeepseekV4ForConditionalGeneration"], "vision_config": {"hidden_size": 1024}}
V41: dict[str, Any] = {
    "architectures": ["DeepseekV41ForCausalLM"],
    "model_type": "deepseek_v41",
    "quantization_config": {**NATIVE, "weight_block_size": [32, 32], "expert_dtype": "fp4"},
    "text_config": {
        "hidden_size": 5120, "num_hidden_layers": 40, "num_nextn_predict_layers": 3, "dspark_block_size": 5,
    },
    "vision_config": {"model_type": "deepseek_v41_vision"},
}  # fmt: skip

LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "flash": _flash("mxfp4", "mtp", "mxfp4"),
    "flash-0731": _flash("mxfp4", "dspark", "mxfp4", **_FLASH_DSPARK),
    "flash-base": _flash("fp8-f32", "mtp", "fp8-f32", expert_dtype="fp8"),
    "flash-base-without-field": _flash("fp8-f32", "mtp", "fp8-f32", expert_dtype=None),
    "flash-vision": _flash("mxfp4", "dspark", "mxfp4", **_VISION, **_FLASH_DSPARK),
    "flash-nvfp4": _flash("modelopt", "mtp", "mxfp4", quantization_config=MODELOPT),
    "flash-0731-nvfp4": _flash("modelopt", "dspark", "mxfp4", quantization_config=MODELOPT, **_FLASH_DSPARK),
    "nvfp4": _flash("nvfp4", "mtp", "bf16", quantization_config=compressed(4, "float", 4), shares=True),
    "nvfp4-undrafted": _flash("nvfp4", quantization_config=compressed(4, "float", 4)),
    "w4a16": _flash("int4", "mtp", "bf16", quantization_config=compressed(4, "int"), shares=True),
    "w4a16-undrafted": _flash("int4", quantization_config=compressed(4, "int")),
    "acti": _flash("int4", "mtp", "int4", quantization_config=compressed(4, "int")),
    "w4a8": _flash("int4", "mtp", "bf16", quantization_config=compressed(4, "int", 8)),
    "w8a8": _flash("int8", quantization_config=compressed(8, "int", 8)),
    "bf16": _flash("bf16", "mtp", "bf16", quantization_config=None),
    "autoround": _flash("gptq", "mtp", "gptq", quantization_config={"quant_method": "auto-round", "bits": 4}),
    "awq": _flash("gptq", quantization_config={"quant_method": "awq", "bits": 4}, expert_dtype=None),
    "gptq": _flash("gptq", quantization_config={"quant_method": "gptq", "bits": 4}, expert_dtype=None),
    "quark": _flash("quark", quantization_config={"quant_method": "quark"}),
    "bitsandbytes": _flash("int8", quantization_config={"quant_method": "bitsandbytes"}),
    "ascend": _flash("int8", "mtp", "int8", quantization_config={"quant_method": "ascend"}, expert_dtype=None),
    "exl3": _flash("quark", "dspark", "mxfp4", quantization_config={"quant_method": "exl3"}, **_FLASH_DSPARK),
    "turboquant": _flash("quark", quantization_config={"quant_method": "turboquant"}),
    "gguf": _gguf,
    "pro": _pro("mxfp4", "mtp"),
    "pro-0813": _pro("mxfp4", "dspark", **DSPARK, dspark_target_layer_ids=PRO_IDS),
    "pro-nvfp4": _pro("modelopt", "mtp", quantization_config=MODELOPT),
    "pro-0813-nvfp4": _pro(
        "modelopt", "dspark", quantization_config=MODELOPT, **DSPARK, dspark_target_layer_ids=PRO_IDS
    ),
    "v41-flash-nvfp4": lambda folder: write(
        folder,
        {**V41, "quantization_config": {**V41["quantization_config"], "moe_quant_algo": "NVFP4"}},
        {"layers.0.ffn.experts.0.w1.weight_scale_2": ("F32", [1])},
    ),
    "v41-flash": lambda folder: write(folder, dict(V41), {"layers.0.ffn.experts.0.w1.weight": ("I8", [8, 8])}),
}  # fmt: skip


def drafting(stored: Stored) -> Iterator[str]:
    """The names under mtp."""
    return (name for name in stored if name.startswith("mtp."))
