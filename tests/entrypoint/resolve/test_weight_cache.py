"""Weights from the daemon of `vllm preload` are refused where vLLM refuses them, or would serve empty experts."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from tests.support.plans import request, resolved

WANTED = {"profile": "64k", "hardware": "b300", "load-format": "ipc_cache"}


@pytest.mark.parametrize("model", ["w4a16", "acti", "nvfp4"])
def test_compressed_tensors_are_refused(model: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot map weights of compressed-tensors .*; leave --load-format out"):
        resolved(request(**WANTED, model=model))
    assert resolved(request(**WANTED | {"load-format": "auto"}, model=model)).value("load-format") == "auto"


@pytest.mark.parametrize("model", ["flash", "flash-nvfp4"])
def test_fp4_experts_are_taken_on_sm_10_with_its_own_kernels_only(model: str) -> None:
    assert resolved(request(**WANTED, model=model)).value("load-format") == "ipc_cache"
    for hardware, capability in (("h200", "9.0"), ("rtx-pro-6000", "12.0")):
        with pytest.raises(ConfigError, match=f"on SM 10.x only, not on SM {capability}; leave --load-format out"):
            resolved(request(**WANTED | {"hardware": hardware, "profile": "128k"}, model=model))
    with pytest.raises(ConfigError, match=r"cannot map the experts of --moe-backend humming"):
        resolved(request(**WANTED, model=model, **{"moe-backend": "humming"}))


def test_fp8_experts_are_taken_on_other_hardware_too() -> None:
    plan = resolved(request(**WANTED | {"hardware": "h200"}, model="flash-base", **{"tensor-parallel-size": 4}))
    assert plan.value("load-format") == "ipc_cache"


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_says_so_itself() -> None:
    """The methods that this rule is about, asked in the installed vLLM."""
    from vllm.model_executor.layers.quantization.compressed_tensors import compressed_tensors
    from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
        compressed_tensors_moe_w4a4_nvfp4,
        compressed_tensors_moe_wna16,
    )
    from vllm.model_executor.layers.quantization.fp8 import Fp8LinearMethod
    from vllm.model_executor.layers.quantization.modelopt import ModelOptNvFp4FusedMoE
    from vllm.model_executor.layers.quantization.mxfp4 import Mxfp4MoEMethod
    from vllm.model_executor.model_loader.weight_cache.utils import WEIGHT_CACHE_DRAFT_METHODS

    refused = (
        compressed_tensors.CompressedTensorsLinearMethod,
        compressed_tensors_moe_wna16.CompressedTensorsWNA16MoEMethod,
        compressed_tensors_moe_w4a4_nvfp4.CompressedTensorsW4A4Nvfp4MoEMethod,
    )
    assert [method.supports_pre_processed_weights for method in refused] == [False] * 3
    taken = (Fp8LinearMethod, ModelOptNvFp4FusedMoE, Mxfp4MoEMethod)
    assert [method.supports_pre_processed_weights for method in taken] == [True] * 3
    assert {"mtp", "dspark"} & WEIGHT_CACHE_DRAFT_METHODS == {"mtp"}
