"""Which linear backends vLLM starts with, for the FP8 layers of DeepSeek-V4's attention, by capability."""

import importlib
import inspect
from typing import Any, get_args
from unittest import mock

import torch

from .platform import installed, vllm_config

KERNELS = "vllm.model_executor.kernels.linear"
TENSOR_PARALLEL = (1, 2, 4, 8)
GROUPED = {"flash": (8, 1024, 4096), "pro": (16, 1024, 4096)}
"""Of the grouped output projection wo_a: groups, output per group, input per group (config.json)."""
OTHERS = {"flash": ((1536, 4096), (4096, 8192), (4096, 4096)), "pro": ((2048, 7168), (7168, 16384), (6144, 7168))}
"""Output and input sizes of other FP8 layers, whole."""


def kernel(shape: tuple[int, int]) -> Any:
    """Return the kernel that vLLM chooses for an FP8 weight in blocks of 128; ValueError where it has none."""
    linear = importlib.import_module(KERNELS)
    keys = importlib.import_module("vllm.model_executor.layers.quantization.utils.quant_utils")
    config = linear.FP8ScaledMMLinearLayerConfig(
        weight_quant_key=keys.kFp8Static128BlockSym,
        activation_quant_key=keys.kFp8Dynamic128Sym,
        input_dtype=torch.bfloat16,
        out_dtype=torch.bfloat16,
        weight_shape=shape,
    )
    return linear.choose_scaled_mm_linear_kernel(
        config, linear._POSSIBLE_FP8_BLOCK_KERNELS, quantization="fp8_block_w8a8"
    )


def keeps_groups(chosen: Any) -> bool:
    """
    Tell whether a kernel prepares a grouped weight (`is_bmm`) for DeepGEMM's einsum.

    The attention multiplies wo_a by itself (nvidia/ops/o_proj.py), so its kernel only lays the weight out.
    """
    classes = [chosen, *(getattr(chosen, name, None) for name in ("base_type", "fallback_type"))]
    return any("is_bmm" in inspect.getsource(each.process_weights_after_loading) for each in classes if each)


def attempt() -> tuple[str, str]:
    """Return the kernel of wo_a and nothing, or nothing and why vLLM ends the start: at every size."""
    chosen = set()
    try:
        for size, (groups, output, inner) in GROUPED.items():
            for shards in TENSOR_PARALLEL:
                found = kernel((groups * output // shards, inner))
                if not keeps_groups(found):
                    return "", f"wo_a: {found.__name__}"
                chosen.add(found.__name__)
            for shape in OTHERS[size]:
                kernel(shape)
    except ValueError as error:
        return "", str(error)
    return "|".join(sorted(chosen)), ""


def backends() -> list[str]:
    """Return the values of --linear-backend but auto."""
    return sorted(set(get_args(importlib.import_module("vllm.config.kernel").LinearBackend)) - {"auto"})


def of_capability() -> dict[str, Any]:
    """Return the kernel of wo_a by backend, and why the others do not run; backends without a kernel act as auto."""
    config = importlib.import_module("vllm.config.vllm")
    runs, refused = {}, {}
    for backend in ("auto", *backends()):
        with mock.patch.object(config, "_current_vllm_config", vllm_config(linear_backend=backend)):
            chosen, why = attempt()
            if chosen:
                runs[backend] = chosen
                continue
            with installed():
                missing = not why.startswith("wo_a") and attempt()[1].startswith("wo_a")
            refused[backend] = "package" if missing else "layout" if why.startswith("wo_a") else "device"
    auto = runs.pop("auto")
    same = sorted(backend for backend, chosen in runs.items() if chosen == auto)
    return {"auto": auto, "as auto": same, "runs": {b: k for b, k in runs.items() if b not in same}, "refused": refused}
