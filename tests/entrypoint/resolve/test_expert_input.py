"""DeepSeek's own MXFP4 experts get FP8 inputs where the hardware's file asks, and Humming computes them in groups."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.demo.deepseek_v4 import TINY, write
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.plan import Plan
from dsv4_serve.entrypoint.resolve import expert_input, shape
from dsv4_serve.entrypoint.resolve.constraints import MEMORY
from dsv4_serve.entrypoint.resolve.expert_input import BF16, CHOICE, GROUPS, VARIABLE
from dsv4_serve.entrypoint.supervisor import kernel_cache
from tests.support.each import each
from tests.support.plans import CATALOG, request, resolved, selected

SCOPE = (
    *MEMORY,
    "profile-model",
    "profile-hardware",
    "tensor-parallel-size",
    "model-files",
    "pro-hardware",
    "moe-backend",
)
PLAIN = {"hardware": "h200", "model": "flash", "profile": "64k", "tensor_parallel_size": 2}
NATIVE = {"flash", "flash-0731", "flash-vision", "pro", "pro-0813", "v41-flash"}
MODELS = [name for name in CATALOG.names("model") if CATALOG.model(name, name).get("scheme") != "unquantized"]
SIZES = (1, 2, 4, 8, 16)
MEASURED = "h200"
OWN = 'about = "mine"\nextends = "{}"\nmxfp4-expert-inputs = "{}"\n'


def plan(catalog: Catalog = CATALOG, **requested: Any) -> Plan:
    skip = (*SCOPE, *requested.pop("skip", ()))
    return resolved(request(**{**PLAIN, "skip": skip, **requested}), catalog)


def inputs(**requested: Any) -> str | None:
    """What the plan tells vLLM; None for nothing."""
    setting = plan(**requested).env.get(VARIABLE)
    return setting.value if setting else None


def test_the_plan_says_where_the_value_comes_from_and_how_to_undo_it() -> None:
    setting = plan().env[VARIABLE]
    assert setting.value == GROUPS
    assert setting.origin.startswith("hardware/h200.toml mxfp4-expert-inputs: FP8 by 128 values")
    assert setting.origin.endswith(f"{BF16} undoes it")
    assert CHOICE not in plan().choices


def test_the_page_about_tables_measures_the_kernels_of_the_plan_that_it_serves() -> None:
    """A table is found by the formats of weights and inputs, and one of others is passed over without a word."""
    page = (Path(__file__).resolve().parents[3] / "docs/how-to/tune.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```\n(python -m qualification\.gpu\.expert_kernels .*?)```", page, re.DOTALL)
    [served] = re.findall(r"dsv4 serve --profile (\S+) --model (\S+) --tp (\d+)", example)
    profile, model, ways = served
    chosen = inputs(profile=profile, model=model, tensor_parallel_size=int(ways))
    form = {GROUPS: "mxfp4-fp8", None: "mxfp4"}[chosen]
    assert set(re.findall(r"\S+,w\d+,\d", example)) == {f"{form},w13,{ways}", f"{form},w2,{ways}"}


@each("model", MODELS)
def test_every_published_model_in_every_shape_starts(model: str) -> None:
    """Those of DeepSeek get FP8 inputs where a GPU has whole groups of each expert, and no other does."""
    for size in SIZES:
        for split in (False, True):
            found = plan(model=model, tensor_parallel_size=size, enable_expert_parallel=split)
            rows = shape.EXPERT_ROWS.get(CATALOG.model(model, model).get("architecture"), 0)
            whole = rows % (size * 128) == 0 and not (split and size > 1)
            assert (VARIABLE in found.env) == (model in NATIVE and whole), (size, split)
            assert (CHOICE in found.choices) == (model in NATIVE and not whole), (size, split)


@pytest.mark.parametrize(
    ("requested", "reason"),
    [
        ({"model": "pro", "tensor_parallel_size": 16}, "16 GPUs cannot divide 3072 rows"),
        ({"model": "v41-flash", "profile": "v41", "tensor_parallel_size": 4}, "4 GPUs cannot divide 2304 rows"),
        ({"model": "v41-flash", "profile": "v41", "tensor_parallel_size": 8}, "8 GPUs cannot divide 2304 rows"),
        ({"profile": "64k-dp", "tensor_parallel_size": 1}, "with data parallelism are unmeasured"),
        ({"tensor_parallel_size": 1, "data_parallel_size": 2}, "with data parallelism are unmeasured"),
        ({"enable_expert_parallel": True}, "with expert parallelism are unmeasured"),
    ],
)
def test_what_does_not_fit_stays_as_vllm_has_it_and_says_why(requested: dict[str, Any], reason: str) -> None:
    found = plan(**requested)
    assert VARIABLE not in found.env
    assert found.choices[CHOICE].value == "BF16"
    assert reason in found.choices[CHOICE].origin


@pytest.mark.parametrize("hardware", CATALOG.names("hardware"))
def test_only_the_hardware_where_it_was_measured_gets_it(hardware: str) -> None:
    for backend in ("auto", "humming"):
        assert inputs(hardware=hardware, moe_backend=backend) == (GROUPS if hardware == MEASURED else None), backend


@pytest.mark.parametrize(
    ("base", "key", "found"),
    [
        ("h100", "fp8", GROUPS),
        ("gh200-144g", "fp8", GROUPS),
        ("h200", "bf16", None),
        ("b300", "fp8", None),
        ('h200"\ncompute-capability = "8.9', "fp8", None),
    ],
)
def test_a_file_of_the_user_says_it_for_its_own_hardware(
    tmp_path: Path, base: str, key: str, found: str | None
) -> None:
    """Where vLLM computes MXFP4 experts otherwise, as on B300, or nobody asked it, it says nothing about Humming."""
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware/mine.toml").write_text(OWN.format(base, key))
    setting = plan(Catalog([tmp_path]), hardware="mine").env.get(VARIABLE)
    assert (setting.value if setting else None) == found
    if setting:
        assert "hardware/mine.toml mxfp4-expert-inputs: FP8" in setting.origin


def test_a_word_that_is_no_kind_of_inputs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware/mine.toml").write_text(OWN.format("h100", "int8"))
    with pytest.raises(ConfigError, match="mxfp4-expert-inputs"):
        plan(Catalog([tmp_path]), hardware="mine")


def test_another_backend_of_the_user_is_left_alone() -> None:
    assert inputs(moe_backend="marlin") is None
    assert inputs(**{"kernel-config.moe_backend": "marlin"}) is None
    assert inputs(moe_backend="humming") == GROUPS


def test_what_the_user_set_stays() -> None:
    for value in (BF16, "{}", '{"dtype": "float8e4m3"}', "/etc/inputs.json"):
        setting = plan(operator={VARIABLE: value}).env[VARIABLE]
        assert (setting.value, setting.origin) == (value, f"environment {VARIABLE}")


def test_a_profile_of_the_user_may_set_it(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        f"[flags]\nmax-model-len = 65536\nmax-num-seqs = 4\n[env]\n{VARIABLE} = '{BF16}'\n"
    )
    assert plan(Catalog([tmp_path]), profile="own").env[VARIABLE].value == BF16


DEEP, LONG = '{"a":' * 20_000, '{"a": ' + 5000 * "7" + "}"


@pytest.mark.parametrize(
    "value", ["", " ", "{dtype: float8e4m3}", " {", DEEP, LONG], ids=["empty", "space", "yaml", "cut", "deep", "long"]
)
def test_what_vllm_could_not_read_is_refused(value: str) -> None:
    with pytest.raises(
        ConfigError, match=f"{VARIABLE} = .* is not JSON; write {{}} for none of it, or unset it"
    ) as refused:
        plan(operator={VARIABLE: value})
    assert len(str(refused.value)) < 250


def test_files_decide_over_the_name_of_the_model(tmp_path: Path) -> None:
    """A small checkpoint whose experts have 256 rows; and one of INT4 behind the name of a native model."""
    for layout in ("native", "w4a16"):
        write(tmp_path / layout, layout, TINY)
    native, other = (f"flash={tmp_path / layout}" for layout in ("native", "w4a16"))
    assert inputs(model=native) == GROUPS
    assert inputs(model=native, tensor_parallel_size=4) is None
    assert inputs(model=other) is None
    assert inputs(model=f"w4a16={tmp_path / 'native'}", skip=("draft-moe-backend",)) is None


@pytest.mark.parametrize(
    ("scheme", "set_by_plan"), [("", True), ("fp8-mxfp4", True), ("unquantized", True), ("w4a16", False)]
)
def test_a_drafter_with_experts_of_another_format_forbids_it(scheme: str, set_by_plan: bool) -> None:
    """The variable is for the drafter's experts, too."""
    requested = request(**PLAIN)
    selection = selected(requested)
    selection = replace(selection, drafter=replace(selection.drafter, scheme=scheme))
    env: dict[str, Any] = {}
    expert_input.settle(selection, resolved(requested).flags, env)
    assert (VARIABLE in env) == set_by_plan


def source(package: str, name: str) -> str:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / name).read_text(encoding="utf-8")


def test_vllm_reads_json_or_a_file_and_takes_no_input_type_for_bf16() -> None:
    """By its source: inputs of 16 bits are not quantized; an empty dictionary skips every layer, as no variable does."""
    envs = source("vllm", "envs.py")
    reader = envs[envs.index("def maybe_convert_json_str_or_file") :].split("\n\n\n")[0]
    assert reader.count("    if ") == 2
    assert "    if value is None:\n        return None\n    if os.path.exists(value):" in reader
    assert reader.endswith("    return json.loads(value)")
    schema = source("vllm", "model_executor/layers/quantization/utils/humming/schema.py")
    assert "config: dict[str, Any], prefix: str):\n    if not config:\n        return True\n" in schema
    moe = source("vllm", "model_executor/layers/quantization/utils/humming/moe.py")
    assert "if input_schema.a_dtype is None or input_schema.a_dtype.num_bits == 16:\n        q_dtype = None\n" in moe


def test_kernels_of_other_inputs_are_counted_as_another_start(tmp_path: Path) -> None:
    notes = {kernel_cache.find(plan(operator=env), tmp_path).note for env in ({}, {VARIABLE: BF16})}
    assert len(notes) == 2
