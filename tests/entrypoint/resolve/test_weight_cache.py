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
def test_methods_that_take_processed_weights_are_not(model: str) -> None:
    assert resolved(request(**WANTED, model=model)).value("load-format") == "ipc_cache"


def test_the_experts_of_mega_moe_are_not_handed_over() -> None:
    mega = {"model": "flash", "moe-backend": "deep_gemm_mega_moe", "enable-expert-parallel": True}
    with pytest.raises(ConfigError, match=r"does not hand over the experts of --moe-backend deep_gemm_mega_moe"):
        resolved(request(**WANTED, **mega))
    resolved(request(**WANTED | {"load-format": "auto"}, **mega))


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
