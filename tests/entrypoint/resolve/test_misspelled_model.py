"""A model that is almost spelled right is named; another release, size or hardware never is."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from tests.support.plans import request, selected

NVIDIA = "nvidia/DeepSeek-V4-Flash-0731-NVFP4"


def answer(model: str) -> str:
    with pytest.raises(ConfigError) as caught:
        selected(request(model=model, hardware="h200"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("flsh", "flash"),
        ("flash-731", "flash-0731"),
        ("w4a61", "w4a16"),
        ("atci", "acti"),
        ("pro-nvpf4", "pro-nvfp4"),
    ],
)
def test_a_name_is_answered_with_the_one_that_is_meant(written: str, meant: str) -> None:
    assert f"(did you mean {meant}?)" in answer(written)


@pytest.mark.parametrize("written", ["V4.1", "flash-0813", "flash-v5", "h200", "gemma", "v4", "r1"])
def test_another_release_is_no_misspelling(written: str) -> None:
    assert "did you mean" not in answer(written).lower()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("deepseek-ai/DeepSeek-V4-Flahs-0731", "deepseek-ai/DeepSeek-V4-Flash-0731"),
        ("deepseek-ai/DeepSeek-V4-Flash-0732", ""),
        ("deepseek-ai/DeepSeek-V4.1-Pro", ""),
        ("deepseek-ai/DeepSeek-V4-Flash-0813", ""),
        ("unsloth/DeepSeek-V4-Flash", ""),
        ("nvidia/DeepSeek-V4-Flash-0731-NVPF4", NVIDIA),
    ],
)
def test_a_repository_is_answered_with_that_of_the_same_release(written: str, meant: str) -> None:
    said = answer(written)
    assert ("did you mean" in said) == bool(meant)
    assert f"(did you mean {meant}?). Ask the Hub with" in said or not meant
