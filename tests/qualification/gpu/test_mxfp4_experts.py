"""What mxfp4_experts.toml and jobs that end in +bf16 change, and that vLLM reads it for experts alone: by its source."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.plan import TUNED_KERNELS
from qualification.gpu import fp8_experts, layout_job, run_numerics, speed, variants
from tests.support.variants import changes, settings

EXPERTS, ENGINES = (Path(speed.__file__).with_name(name) for name in ("mxfp4_experts.toml", "sglang.toml"))
BF16, GROUPS, TOKENS = ({fp8_experts.VARIABLE: fp8_experts.ACTIVATIONS[name]} for name in ("bf16", "fp8", "fp8token"))
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "plan": {
        "bf16": BF16, "fp8-tokens": TOKENS, "plan-again": {}, "marlin": {"moe-backend": "marlin", fp8_experts.VARIABLE: None},
        "grouped": {"VLLM_HUMMING_MOE_GEMM_TYPE": "grouped"},
    },
    "dspark-plan": {"dspark-bf16": BF16},
}  # fmt: skip
OF_SGLANG = {"ours-mtp": {"ours-mtp-bf16": BF16}, "ours-dspark": {"ours-dspark-bf16": BF16}}


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize(("file", "expected"), [(EXPERTS, CHANGES), (ENGINES, OF_SGLANG)])
def test_each_variant_changes_one_setting_of_the_plan(
    monkeypatch: pytest.MonkeyPatch, file: Path, expected: dict[str, dict[str, dict[str, Any]]], gpus: int
) -> None:
    for name, others in expected.items():
        plan = settings(monkeypatch, file, name, gpus)
        assert plan.items() >= GROUPS.items()
        for other, change in others.items():
            fp8 = change.get(fp8_experts.VARIABLE, "") not in (*BF16.values(), None)
            tables = {} if gpus == 1 or fp8 else {TUNED_KERNELS: None}  # for two GPUs and FP8 inputs alone
            assert changes(plan, settings(monkeypatch, file, other, gpus)) == change | tables, other


def test_no_variant_is_left_out_above() -> None:
    names = {one["name"] for one in variants.read(EXPERTS, 2)}
    assert names == CHANGES.keys() | {name for others in CHANGES.values() for name in others}


@pytest.mark.parametrize(("ending", "changed"), [("", {}), ("+bf16", BF16), ("+fp8", GROUPS), ("+ep+fp8token", TOKENS)])
def test_a_job_says_which_inputs_its_experts_have(ending: str, changed: dict[str, str]) -> None:
    assert run_numerics.variables(f"native@2{ending}") == changed
    job = layout_job.parse_job(f"native{ending}", 2)
    assert fp8_experts.variables(job.inputs) == changed
    assert job.name == "native" + ending.replace("+", "-")


def source(name: str) -> Path:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / name


def test_vllm_reads_the_variable_for_experts_and_its_own_humming_scheme_alone() -> None:
    readers = {path.name for path in source(".").rglob("*.py") if fp8_experts.VARIABLE in path.read_text()}
    assert readers == {"envs.py", "moe.py", "mxfp4.py", "humming.py"}
    moe = source("model_executor/layers/quantization/utils/humming/moe.py").read_text()
    assert 'input_quant_config.pop(\n                    "allow_fallback", False\n                )' in moe


def test_vllm_has_kernels_for_both_kinds_of_activations() -> None:
    experts = source("model_executor/layers/fused_moe/experts/fused_humming_moe.py").read_text()
    for kind in ("kFp8DynamicTokenSym", "kFp8Dynamic128Sym"):
        assert f"(kMxfp4Static, {kind})," in experts


def test_the_variable_has_the_names_of_humming_0_1_17() -> None:
    """Its HummingInputSchema: `a_dtype` or `dtype`, `input_scale_group_size` or `group_size`; another key is ignored."""
    read = {name: json.loads(value) for name, value in fp8_experts.ACTIVATIONS.items()}
    assert read == {
        "bf16": {"dtype": "bfloat16"}, "fp8": {"dtype": "float8e4m3", "group_size": 128}, "fp8token": {"dtype": "float8e4m3"},
    }  # fmt: skip
