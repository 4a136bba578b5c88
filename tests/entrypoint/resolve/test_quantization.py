"""A --quantization that contradicts the files is refused where vLLM ends, and not where vLLM replaces it."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.vllm_schema import combinations
from tests.support.plans import request, resolved

WANTED = {"profile": "64k", "hardware": "b300"}


@pytest.mark.parametrize("model", ["w4a16", "acti", "nvfp4"])
@pytest.mark.parametrize("value", ["awq", "FP8", "deepseek_v4_fp8", "modelopt_fp4", "fp8_per_block", "gguf"])
def test_another_method_than_that_of_the_files_is_refused(model: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--quantization {value}: its files say compressed-tensors; leave"):
        resolved(request(**WANTED, model=model, quantization=value))


@pytest.mark.parametrize(
    ("model", "value"),
    [
        ("w4a16", "compressed-tensors"),
        ("nvfp4", "humming"),
        ("flash", "awq"),
        ("flash-nvfp4", "modelopt_fp4"),
        ("flash", "fp8"),
    ],
)
def test_a_method_that_vllm_takes_or_replaces_by_the_files_own_is_not(model: str, value: str) -> None:
    assert resolved(request(**WANTED, model=model, quantization=value)).value("quantization") == value


def test_the_drafter_s_method_counts_where_it_drafts() -> None:
    wanted: dict[str, Any] = WANTED | {"model": "acti", "speculative-config.quantization": "fp8"}
    with pytest.raises(ConfigError, match="leave --speculative-config.quantization out"):
        resolved(request(**wanted))
    resolved(request(**wanted, **{"speculative-config.num_speculative_tokens": 0}))


def test_what_vllm_takes_by_itself_is_known_for_every_scheme() -> None:
    for scheme in ("fp8-mxfp4", "fp8", "modelopt-nvfp4", "nvfp4", "w4a16"):
        found = combinations.quantization(scheme)
        assert found
        assert found["accepts"] == "any" or found["auto"] in found["accepts"]
    assert combinations.quantization("awq") is None
