"""Which values of --quantization vLLM starts with, by scheme of the checkpoint."""

import importlib
from types import SimpleNamespace
from typing import Any

_FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}
_INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
_FP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True}


def _compressed(weights: dict[str, Any], pattern: str) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {"quant_method": "compressed-tensors", "format": pattern, "config_groups": {"group_0": group}, "ignore": []}


CONFIGS = {
    "fp8-mxfp4": _FP8,
    "fp8": _FP8,
    "modelopt-nvfp4": {**_FP8, "moe_quant_algo": "NVFP4"},
    "nvfp4": _compressed(_FP4, "nvfp4-pack-quantized"),
    "w4a16": _compressed(_INT4, "pack-quantized"),
}
"""`quantization_config` of the published checkpoints, by scheme."""
MODEL_TYPES = ("deepseek_v4", "deepseek_v41")
"""Of DeepSeek-V4 and V4.1; a value counts as accepted where both accept it."""


def methods() -> list[str]:
    """Return the values of --quantization."""
    return list(importlib.import_module("vllm.model_executor.layers.quantization").QUANTIZATION_METHODS)


def verified(config: dict[str, Any], model_type: str, method: str | None) -> str:
    """Return the method that vLLM takes for a checkpoint; ValueError where it ends the start."""
    settings = SimpleNamespace(quantization_config=dict(config), model_type=model_type)
    convertor = importlib.import_module("vllm.transformers_utils.model_arch_config_convertor")
    found = convertor.ModelArchConfigConvertorBase(settings, settings).get_quantization_config()
    model = SimpleNamespace(
        quantization=method,
        model_arch_config=SimpleNamespace(quantization_config=found),
        hf_config=settings,
        allow_deprecated_quantization=False,
    )
    importlib.import_module("vllm.config").ModelConfig._verify_quantization(model)
    return str(model.quantization)


def accepts(config: dict[str, Any], model_type: str, method: str) -> bool:
    """Tell whether vLLM goes on with a method: it takes it, or takes the checkpoint's own in its place."""
    try:
        verified(config, model_type, method)
    except ValueError:
        return False
    return True


def of_checkpoints() -> dict[str, Any]:
    """Return by scheme what vLLM takes by itself, and the values of --quantization that it goes on with."""
    found = {}
    for scheme, config in CONFIGS.items():
        answers = [
            [method for method in methods() if accepts(config, model_type, method)] for model_type in MODEL_TYPES
        ]
        common = [method for method in answers[0] if all(method in others for others in answers)]
        auto = {verified(config, model_type, None) for model_type in MODEL_TYPES}
        found[scheme] = {
            "auto": "|".join(sorted(auto)),
            "accepts": "any" if len(common) == len(methods()) else common,
        }
    return found
