"""Quantizations and formats that no model here has, by the name that a checkpoint gives them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .identity import Unsupported

_ABSENT = "vLLM 0.32.0 does not load it: it is none of its quantization methods"
_UNPROVEN = "vLLM 0.32.0 has the method, but nobody has shown it with DeepSeek-V4's loader"
_OURS = "a checkpoint of DeepSeek, NVIDIA or canada-quant"

_METHODS: Mapping[str, Unsupported] = {
    "awq": Unsupported("AWQ", "4-bit integers with zero points", _UNPROVEN, _OURS),
    "gptq": Unsupported("GPTQ", "4-bit integers in GPTQ's packing", _UNPROVEN, _OURS),
    "auto-round": Unsupported("AutoRound", "Intel's rounding of integers in GPTQ's packing", _UNPROVEN, _OURS),
    "quark": Unsupported(
        "Quark", "AMD's MXFP4 and FP8", "vLLM 0.32.0 has it for DeepSeek-V4 on AMD GPUs", f"an AMD GPU, or {_OURS}"
    ),
    "bitsandbytes": Unsupported("bitsandbytes", "8-bit or NF4 weights", _ABSENT, f"Transformers, or {_OURS}"),
    "exl3": Unsupported("EXL3", "ExLlamaV3's trellis codes", _ABSENT, f"ExLlamaV3 (TabbyAPI), or {_OURS}"),
    "gguf": Unsupported("GGUF", "llama.cpp's file format", _ABSENT, f"llama.cpp, or {_OURS}"),
    "ascend": Unsupported("Ascend", "INT8 weights for Huawei's NPUs", _ABSENT, f"vllm-ascend on an NPU, or {_OURS}"),
    "turboquant": Unsupported(
        "TurboQuant",
        "rotated codes for weights",
        "vLLM 0.32.0 has TurboQuant for KV caches only",
        f"the engine of its publisher, or {_OURS}",
    ),
    "torchao": Unsupported("torchao", "PyTorch's quantized tensors", _UNPROVEN, _OURS),
    "modelopt": Unsupported("ModelOpt", "NVIDIA's format for whole models", _UNPROVEN, f"NVIDIA's NVFP4, or {_OURS}"),
}
GGUF = _METHODS["gguf"]
_SYNONYMS = {
    "auto_awq": "awq", "awq_marlin": "awq", "auto_gptq": "gptq", "gptq_marlin": "gptq", "autoround": "auto-round",
    "auto_round": "auto-round", "intel/auto-round": "auto-round", "inc": "auto-round", "exl2": "exl3",
    "modelopt_fp4": "modelopt", "modelopt_mixed": "modelopt", "modelopt_mxfp8": "modelopt", "bnb": "bitsandbytes",
}  # fmt: skip
_SCHEMES: Mapping[str, Unsupported] = {
    "w4a8": Unsupported(
        "compressed-tensors W4A8",
        "INT4 weights with 8-bit activations",
        "vLLM 0.32.0 has kernels for it (CUTLASS, Humming), which nobody has shown with DeepSeek-V4",
        "W4A16 of the same weights, such as --model w4a16",
    ),
    "w8a8": Unsupported("compressed-tensors W8A8", "8-bit weights and activations", _UNPROVEN, _OURS),
    "unquantized": Unsupported(
        "BF16", "no quantization", "vLLM 0.32.0 loads it, at two bytes a parameter", f"{_OURS}, at a third of the size"
    ),
}


def of(config: Mapping[str, Any], scheme: str, files: frozenset[str]) -> Unsupported | None:
    """
    Return what a checkpoint is where `scheme` is the name of no model's scheme; None for one that may have a model.

    The caller asks the models first: this is how a checkpoint is named that none of them matches.
    """
    shards = any(name.endswith(".safetensors") for name in files)
    if not shards and any(name.endswith(".gguf") for name in files):
        return GGUF
    quantization = config.get("quantization_config")
    method = str(quantization.get("quant_method", "")).lower() if isinstance(quantization, dict) else ""
    if method in ("fp8", "deepseek_v4_fp8"):
        return None
    if method == "compressed-tensors":
        return _SCHEMES.get(scheme) or (None if scheme in ("w4a16", "nvfp4") else _other(scheme))
    if not method:
        return _SCHEMES.get(scheme)
    return _METHODS.get(_SYNONYMS.get(method, method)) or _other(method)


def _other(name: str) -> Unsupported:
    return Unsupported(
        name, "a quantization that is not known here", "whether vLLM 0.32.0 loads it is not known", _OURS
    )
