"""The variables of `docker run -e`."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.resolve import environment


@pytest.mark.parametrize(
    ("name", "text", "flag", "value"),
    [
        ("TP", "4", "tensor-parallel-size", 4),
        ("MAX_MODEL_LEN", "65536", "max-model-len", 65536),
        ("MAX_NUM_SEQS", "3", "max-num-seqs", 3),
        ("MAX_NUM_BATCHED_TOKENS", "2048", "max-num-batched-tokens", 2048),
        ("GPU_MEMORY_UTILIZATION", "0.9", "gpu-memory-utilization", 0.9),
        ("GPU_MEM_UTIL", " .9 ", "gpu-memory-utilization", 0.9),
        ("NUM_SPECULATIVE_TOKENS", "2", "speculative-config.num_speculative_tokens", 2),
        ("NUM_SPECULATIVE_TOKENS", "0", "speculative-config.num_speculative_tokens", 0),
        ("SERVED_MODEL_NAME", "one, two", "served-model-name", ["one", "two"]),
        ("PORT", "9000", "port", 9000),
    ],
)
def test_a_variable_sets_its_flag_and_is_its_origin(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, flag: str, value: object
) -> None:
    monkeypatch.setenv(name, text)
    assert environment.read().environment.flags[flag] == Setting(value, f"environment {name}")


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROFILE", "TP", "API_KEY_FILE"):
        monkeypatch.setenv(name, "")
    request = environment.read()
    assert (dict(request.choices), dict(request.environment.flags)) == ({}, {})


def test_two_spellings_that_agree_are_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_MEM_UTIL", "0.90")
    monkeypatch.setenv("GPU_MEMORY_UTILIZATION", ".9")
    assert environment.read().environment.flags["gpu-memory-utilization"].value == 0.9


def test_two_spellings_that_disagree_are_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_MEM_UTIL", "0.9")
    monkeypatch.setenv("GPU_MEMORY_UTILIZATION", "0.8")
    with pytest.raises(ConfigError, match="GPU_MEMORY_UTILIZATION.*GPU_MEM_UTIL"):
        environment.read()


def test_what_the_operator_sets_beats_a_profile_file_and_other_variables_stay_out() -> None:
    environ = {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "2", "HOME": "/root", "VLLM_LOGGING_LEVEL": "DEBUG"}
    layer, _ = environment.operator_layer(environ, frozenset({"OMP_NUM_THREADS"}))
    assert set(layer.env) == {"NCCL_DEBUG", "OMP_NUM_THREADS", "VLLM_LOGGING_LEVEL"}


@pytest.mark.parametrize(
    "name",
    [
        "PYTORCH_CUDA_ALLOC_CONF",
        "TORCH_NCCL_BLOCKING_WAIT",
        "TORCHINDUCTOR_MAX_AUTOTUNE",
        "CUDA_LAUNCH_BLOCKING",
        "TRITON_PRINT_AUTOTUNING",
        "FLASHINFER_CUDA_ARCH_LIST",
        "DG_JIT_USE_NVRTC",
        "TILELANG_DISABLE_TMA",
        "CUBLAS_WORKSPACE_CONFIG",
        "LD_PRELOAD",
        "MAX_JOBS",
    ],
)
def test_a_variable_that_changes_the_engine_stands_in_the_plan_with_its_origin(name: str) -> None:
    assert environment.operator_layer({name: "1"}, frozenset())[0].env[name] == Setting("1", f"environment {name}")


def test_a_label_of_an_image_is_no_setting() -> None:
    assert not environment.operator_layer({"CUDA_VERSION": "13.0.1"}, frozenset())[0].env


def test_a_value_that_vllm_does_not_take_is_refused() -> None:
    layer, problems = environment.operator_layer({"VLLM_USE_DEEP_GEMM": "maybe"}, frozenset())
    assert ["VLLM_USE_DEEP_GEMM = 'maybe'" in problem for problem in problems] == [True]
    assert not layer.env
