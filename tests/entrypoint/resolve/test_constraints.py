"""Unsupported combinations: refused with a reason and a way out, and skipped by name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.resolve import constraints
from dsv4_serve.entrypoint.resolve.resolution import resolve_request
from tests.support.plans import CATALOG, request, resolved, selected

MARLIN: dict[str, Any] = {"hardware": "rtx-pro-6000", "model": "w4a16", "moe_backend": "marlin"}
CONNECTOR: dict[str, Any] = {
    "kv-transfer-config.kv_connector": "NixlConnector",
    "kv-transfer-config.kv_role": "kv_both",
    "disable_custom_all_reduce": True,
}
HEAVY: dict[str, Any] = {"hardware": "rtx-pro-6000", "model": "w4a16", "tensor_parallel_size": 1}


@pytest.mark.parametrize(
    ("requested", "says"),
    [
        (HEAVY, "155.3 GiB per GPU"),
        (
            {"hardware": "b300", "model": "nvfp4", "moe_backend": "deep_gemm_mega_moe"},
            "no kernel for the model's NVFP4",
        ),
        ({"hardware": "h200", "model": "pro-nvfp4", "profile": "pro", "tensor_parallel_size": 8}, "8 x B300"),
        ({"hardware": "h200", "model": "flash-0731", "speculative-config.method": "mtp"}, "its drafter is DSpark"),
        ({"hardware": "rtx-pro-6000", "model": "acti", "moe_backend": "marlin"}, "garble"),
        ({"hardware": "h200", "model": "w4a16", "moe_backend": "deep_gemm"}, "humming"),
        ({"hardware": "cpu", "profile": "524k", "model": "acti"}, "does not support cpu"),
        ({"hardware": "rtx-pro-6000", "profile": "pro", "model": "pro", "tensor_parallel_size": 8}, "104.5 GiB"),
    ],
)
def test_a_combination_known_to_fail_is_refused_with_the_reason_and_the_way_out(
    requested: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        resolved(request(**requested))
    assert "--skip" in str(caught.value)


CACHE = "kv-cache-dtype"


@pytest.mark.parametrize(
    ("model", "hardware", "backend", "refused", "taken"),
    [
        ("flash", "h200", "auto", "nvfp4_ds_mla bfloat16 turboquant_4bit_nc", "auto fp8 fp8_ds_mla fp8_e4m3 fp8_e5m2"),
        ("flash", "rtx-pro-6000", "auto", "nvfp4_ds_mla bfloat16", "auto fp8 fp8_ds_mla"),
        ("flash", "rtx-pro-6000", "FLASHINFER_MLA_SPARSE_DSV4", "nvfp4_ds_mla bfloat16", "fp8"),
        ("flash", "b300", "auto", "nvfp4_ds_mla bfloat16", "auto fp8"),
        ("flash", "b300", "FLASHINFER_MLA_SPARSE_DSV4", "nvfp4_ds_mla fp8_ds_mla", "auto bfloat16 fp8 fp8_e4m3"),
        ("v41-flash", "b300", "auto", "bfloat16 fp8_e4m3", "auto fp8 fp8_ds_mla nvfp4_ds_mla"),
        ("v41-flash", "h200", "auto", "nvfp4_ds_mla fp8_e4m3", "auto fp8 fp8_ds_mla"),
    ],
)
def test_a_cache_type_that_the_attention_does_not_have_is_refused(
    model: str, hardware: str, backend: str, refused: str, taken: str
) -> None:
    size = 2 if model == "flash" else 8
    base = {"hardware": hardware, "model": model, "tensor_parallel_size": size, "attention_backend": backend}
    for value in refused.split():
        with pytest.raises(ConfigError, match=f"no {value} cache on SM .*set --{CACHE} fp8.*--skip {CACHE}"):
            resolved(request(**base, kv_cache_dtype=value))
    for value in taken.split():
        assert resolved(request(**base, kv_cache_dtype=value)).flags[CACHE].value == value


def test_another_architecture_and_a_cpu_have_no_such_attention() -> None:
    assert resolved(request(hardware="cpu", profile="demo", model="demo=/x", kv_cache_dtype="bfloat16")).flags[CACHE]


def test_a_refusal_can_be_skipped_by_name_and_the_plan_records_it() -> None:
    with pytest.raises(ConfigError, match="use --skip w4a16-marlin-sm120"):
        resolved(request(**MARLIN))
    plan = resolved(request(**MARLIN, skip=("w4a16-marlin-sm120",)))
    assert "garble" in plan.choices["skip w4a16-marlin-sm120"].origin


def test_a_skipped_check_is_listed_in_the_plan() -> None:
    choices = resolved(request(hardware="h200", skip=("memlock", "shared-memory"))).choices
    assert choices["skip memlock"].value is choices["skip shared-memory"].value is True


def test_more_gpus_than_the_process_sees_are_refused() -> None:
    one = HostGpus("h200", "NVML", 1)
    with pytest.raises(ConfigError, match="-size 2, but this process sees 1 GPU") as caught:
        resolved(request(model="w4a16"), gpus=one)
    assert "--skip gpu-count" in str(caught.value)


def test_what_the_doctor_asks_itself_is_not_among_the_violated_constraints() -> None:
    """Memory: one question, with one answer."""
    selection = selected(request(**HEAVY))
    plan = resolved(request(**HEAVY, skip=tuple(constraints.names(selection))))
    refused = [name for name, _ in constraints.refusals(selection, plan.flags, plan.env)]
    violated = [name for name, _, _ in constraints.violated(selection, plan.flags, plan.env)]
    assert refused[0] == "weights"
    assert "weights" not in violated
    assert {*violated, *constraints.MEMORY} >= {*refused}


def test_a_name_to_skip_has_to_be_that_of_a_constraint_or_a_check() -> None:
    def checks() -> list[str]:
        return ["memlock"]

    def skipping(*names: str) -> object:
        return resolve_request(CATALOG, request(**MARLIN, skip=names), pytest.fail, checks)

    assert skipping("memlock", "w4a16-marlin-sm120")
    with pytest.raises(ConfigError, match=r"'memlok' is not a check.* \(did you mean memlock\?\)"):
        skipping("memlok", "w4a16-marlin-sm120")
    with pytest.raises(ConfigError, match=r"'w4a16-marlin' is not a check.* \(did you mean w4a16-marlin-sm120\?\)"):
        skipping("w4a16-marlin")
    with pytest.raises(ConfigError, match="trunk-complete was renamed to target-model-complete"):
        skipping("trunk-complete")
    with pytest.raises(ConfigError, match="marlin-linear was renamed to linear-backend"):
        skipping("marlin-linear")
    with pytest.raises(ConfigError, match="dspark-only was renamed to drafter-method"):
        skipping("dspark-only")


def test_the_names_of_checks_are_read_only_where_a_name_is_not_a_constraint() -> None:
    skip = ("w4a16-marlin-sm120",)
    assert resolve_request(
        CATALOG, request(**MARLIN, skip=skip), pytest.fail, lambda: pytest.fail("every name is a constraint's")
    )


@pytest.mark.parametrize(
    ("name", "requested"),
    [
        ("log-config", {"log_config_file": "/etc/log.json"}),
        ("log-config", {"logging-config.pylogging_config_file": "/etc/log.json"}),
        ("log-config", {"operator": {"VLLM_LOGGING_CONFIG_PATH": "/etc/log.json"}}),
        ("log-off", {"operator": {"VLLM_CONFIGURE_LOGGING": "0"}}),
        ("log-off", {"logging-config.configure_logging": False}),
        ("log-level", {"operator": {"VLLM_LOGGING_LEVEL": "critical"}}),
        ("log-level", {"operator": {"VLLM_LOGGING_LEVEL": "fatal"}}),
        ("log-level", {"log_level": "CRITICAL"}),
        ("log-level", {"logging-config.log_level": "CRITICAL"}),
        ("log-stream", {"operator": {"VLLM_LOGGING_STREAM": "/var/log/vllm"}}),
        ("log-stream", {"operator": {"VLLM_LOGGING_STREAM": "engine.log"}}),
        ("no-http", {"grpc": True}),
        ("no-http", {"uds": "/run/vllm.sock"}),
        ("rust-frontend", {"operator": {"VLLM_USE_RUST_FRONTEND": "1"}}),
        ("rust-frontend", {"grpc_port": 9000}),
        ("no-metrics", {"disable_log_stats": True}),
        ("traces-endpoint", {"collect_detailed_traces": ["all"]}),
        ("expandable-segments", {"operator": {"PYTORCH_CUDA_ALLOC_CONF": "a:1,expandable_segments:True"}}),
        ("expandable-segments", {"operator": {"PYTORCH_ALLOC_CONF": "expandable_segments:True,a:1"}}),
        ("expandable-segments", {"operator": {"PYTORCH_ALLOC_CONF": " a:1 , expandable_segments : True "}}),
        (
            "expandable-segments-with-kv-connector",
            {"operator": {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}, **CONNECTOR},
        ),
        *(
            (
                "expandable-segments-with-kv-connector",
                {
                    "operator": {variable: "expandable_segments:True"},
                    "kv_offloading_size": 8.0,
                    "disable_custom_all_reduce": True,
                },
            )
            for variable in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
        ),
    ],
)
def test_a_setting_that_blinds_the_supervisor_or_ends_the_engine_is_refused(
    name: str, requested: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"use --skip {name}"):
        resolved(request(hardware="h200", **requested))
    assert resolved(request(hardware="h200", **requested, skip=(name,)))


@pytest.mark.parametrize(
    "requested",
    [
        {"logging-config.formatter": "json", "log_level": "WARNING"},
        {"operator": {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_LOGGING_PREFIX": "x ", "VLLM_LOGGING_COLOR": "1"}},
        {"operator": {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_LOGGING_CONFIG_PATH": ""}},
        {"operator": {"VLLM_USE_RUST_FRONTEND": "0"}, "disable_log_stats": False},
        {"otlp_traces_endpoint": "http://collector:4317", "collect_detailed_traces": ["model", "worker"]},
        {"otlp_traces_endpoint": "http://collector:4317"},
        {"operator": {"VLLM_CONFIGURE_LOGGING": "1", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"}},
        {"operator": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, "disable_custom_all_reduce": True},
        {
            "operator": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
            "enable_cumem_allocator": True,
            **CONNECTOR,
        },
    ],
)
def test_what_the_supervisor_can_read_and_the_engine_can_do_is_not_refused(requested: dict[str, Any]) -> None:
    assert resolved(request(hardware="h200", **requested))


def test_all_problems_of_a_request_are_answered_at_once() -> None:
    wrong = {"VLLM_NO_SUCH_VARIABLE": "1", "VLLM_USE_DEEP_GEMM": "0"}
    with pytest.raises(ConfigError) as caught:
        resolved(request(hardware="h200", model="w4a16", moe_backend="deep_gemm", operator=wrong))
    first, *problems = str(caught.value).splitlines()
    assert first == "3 problems:"
    assert "VLLM_NO_SUCH_VARIABLE" in problems[0]
    assert {"moe-backend", "no-deep-gemm"} == {text.rpartition("--skip ")[2].rstrip(".") for text in problems[1:]}


def test_a_model_is_served_with_a_profile_that_is_made_for_it() -> None:
    plan = resolved(request(hardware="h200", model="v41-flash", tensor_parallel_size=4))
    assert plan.choices["profile"].value == "v41"
    assert "first profile for v41-flash" in plan.choices["profile"].origin
    assert resolved(request(hardware="h200", model="acti")).choices["profile"].value == "524k"


def test_a_context_beyond_the_models_positions_is_refused_unless_a_variable_allows_it() -> None:
    wanted = {"hardware": "h200", "model": "w4a16", "max_model_len": 2_000_000}
    with pytest.raises(ConfigError, match="max-model-len is 2,000,000; needed: at most 1,048,576; set --max-model-len"):
        resolved(request(**wanted))
    allowed = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    assert resolved(request(**wanted, operator=allowed)).value("max-model-len") == 2_000_000
    assert resolved(request(**wanted | {"max_model_len": 1_048_576})).value("max-model-len") == 1_048_576
