"""vLLM gets the hardware's tables of measured kernels where Humming computes the experts and one of them may fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.demo.deepseek_v4 import TINY, write
from dsv4_serve.entrypoint.catalog.catalog import SHIPPED, Catalog
from dsv4_serve.entrypoint.plan import TUNED_KERNELS as VARIABLE
from dsv4_serve.entrypoint.plan import Plan
from dsv4_serve.entrypoint.resolve import expert_input
from dsv4_serve.entrypoint.shared_result import digest
from dsv4_serve.entrypoint.supervisor import kernel_cache
from tests.entrypoint.resolve.test_expert_input import PLAIN, SCOPE
from tests.support.each import each
from tests.support.plans import CATALOG, request, resolved

SHIPPED_TABLES = str(SHIPPED / "hardware/h200-kernels")
MEASURED = {"flash", "flash-0731", "flash-vision", "w4a16", "acti"}
"""Flash with DeepSeek's own MXFP4 experts, and with INT4 ones in groups of 128, which both of the latter two have."""
MODELS = [name for name in CATALOG.names("model") if CATALOG.model(name, name).get("scheme") != "unquantized"]
NAME = "humming_moe,E=256,N=4096,K=1024,a_dtype={},b_dtype={},device_name=NVIDIA_H100_80GB_HBM3.json"


def plan(catalog: Catalog = CATALOG, **requested: Any) -> Plan:
    skip = (*SCOPE, *requested.pop("skip", ()))
    return resolved(request(**{**PLAIN, "skip": skip, **requested}), catalog)


def folder(catalog: Catalog = CATALOG, **requested: Any) -> str | None:
    """What the plan tells vLLM; None for nothing."""
    setting = plan(catalog, **requested).env.get(VARIABLE)
    return setting.value if setting else None


def own(place: Path, file: str) -> Catalog:
    """A catalog with hardware of one's own, `mine`, and a table for it."""
    (place / "hardware/mine-kernels").mkdir(parents=True)
    (place / "hardware/mine-kernels" / file).write_text("{}")
    text = "extends = 'h100'\nnvml-names = ['NVIDIA H100 80GB HBM3']\ntuned-kernels = 'mine-kernels'\n"
    (place / "hardware/mine.toml").write_text(text)
    return Catalog([place])


def test_the_plan_says_where_the_tables_come_from_and_claims_no_more_than_it_knows() -> None:
    setting = plan().env[VARIABLE]
    assert setting.value == SHIPPED_TABLES
    assert setting.origin == (
        "hardware/h200.toml tuned-kernels: tables of measured kernels for experts, used where they fit;"
        f" an empty {VARIABLE} undoes it"
    )


@each("model", MODELS)
def test_of_the_shipped_plans_those_of_flash_on_two_gpus_have_tables(model: str) -> None:
    for size in (1, 2, 4, 8):
        for split in (False, True):
            found = folder(model=model, tensor_parallel_size=size, enable_expert_parallel=split)
            measured = model in MEASURED and size == 2 and not split
            assert found == (SHIPPED_TABLES if measured else None), (size, split)


@pytest.mark.parametrize("hardware", CATALOG.names("hardware"))
def test_other_gpus_have_none(hardware: str) -> None:
    """H200 NVL extends H200, and its name is not the one that was measured."""
    for model, env in (("flash", {expert_input.VARIABLE: expert_input.GROUPS}), ("w4a16", {})):
        found = folder(hardware=hardware, model=model, operator=env)
        assert found == (SHIPPED_TABLES if hardware == "h200" else None), model


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (expert_input.BF16, None),
        ("{}", None),
        ('{"dtype": "int8"}', None),
        (expert_input.GROUPS, SHIPPED_TABLES),
        ('{"a_dtype": "float8e4m3", "input_scale_group_size": 128}', SHIPPED_TABLES),
        ("/etc/inputs.json", SHIPPED_TABLES),
    ],
)
def test_the_inputs_of_the_experts_are_those_of_a_table(value: str, found: str | None) -> None:
    """Where a file says what they are, vLLM alone compares them."""
    assert folder(operator={expert_input.VARIABLE: value}) == found


def test_the_inputs_of_int4_experts_are_bf16_in_their_tables() -> None:
    for value, found in ((expert_input.BF16, SHIPPED_TABLES), (expert_input.GROUPS, None), ("{}", SHIPPED_TABLES)):
        assert folder(model="w4a16", operator={expert_input.VARIABLE: value}) == found, value


@pytest.mark.parametrize("model", ["flash", "w4a16"])
def test_other_kernels_and_adapters_take_no_tables(model: str) -> None:
    assert folder(model=model, moe_backend="marlin") is None
    assert folder(model=model, moe_backend="humming") == SHIPPED_TABLES
    assert folder(model=model, enable_lora=False) == SHIPPED_TABLES
    assert folder(model=model, enable_lora=True) is None


def test_what_the_user_set_stays(tmp_path: Path) -> None:
    for value in ("/srv/tables", ""):
        setting = plan(operator={VARIABLE: value}).env[VARIABLE]
        assert (setting.value, setting.origin) == (value, f"environment {VARIABLE}")
    (tmp_path / "own.toml").write_text(
        f"[flags]\nmax-model-len = 65536\nmax-num-seqs = 4\n[env]\n{VARIABLE} = '/of/profile'\n"
    )
    assert folder(Catalog([tmp_path]), profile="own") == "/of/profile"


@pytest.mark.parametrize(
    ("model", "inputs", "weights", "fits"),
    [
        ("flash", "bfloat16", "float4e2m1", True),
        ("w4a16", "bfloat16", "uint4", True),
        ("w4a16", "bfloat16", "float4e2m1", False),
        ("flash", "float8e4m3", "float4e2m1", False),
    ],
)
def test_a_file_of_the_user_has_tables_of_its_own_hardware(
    tmp_path: Path, model: str, inputs: str, weights: str, fits: bool
) -> None:
    mine = own(tmp_path, NAME.format(inputs, weights))
    found = folder(mine, hardware="mine", model=model)
    assert found == (str(tmp_path / "hardware/mine-kernels") if fits else None)
    if found:
        origin = plan(mine, hardware="mine", model=model).env[VARIABLE].origin
        assert origin.startswith(f"{tmp_path}/hardware/mine.toml tuned-kernels: ")


def test_files_decide_over_the_name_of_the_model(tmp_path: Path) -> None:
    """A small checkpoint has other shapes; one GPU's share of Flash on two has those that were measured."""
    write(tmp_path / "tiny", "native", TINY)
    write(tmp_path / "part", "native", replace(TINY, inter=1024))
    tiny, part = (f"flash={tmp_path / name}" for name in ("tiny", "part"))
    assert folder(model=tiny) is None
    assert folder(model=tiny, tensor_parallel_size=1) is None
    assert folder(model=part, tensor_parallel_size=1) == SHIPPED_TABLES
    assert folder(model=part) is None


@pytest.mark.parametrize(("layout", "model"), [("w4a16", "w4a16"), ("acti", "acti")])
def test_int4_experts_have_tables_where_as_many_weights_share_a_scale(tmp_path: Path, layout: str, model: str) -> None:
    write(tmp_path / "part", layout, replace(TINY, inter=1024))
    config = tmp_path / "part/config.json"
    assert '"group_size": 128' in config.read_text()
    asked = {"model": f"{model}={tmp_path / 'part'}", "tensor_parallel_size": 1}
    assert folder(**asked) == SHIPPED_TABLES
    config.write_text(config.read_text().replace('"group_size": 128', '"group_size": 64'))
    assert folder(**asked) is None
    mine = own(tmp_path, NAME.format("bfloat16", "uint4"))  # a table that says nothing of it: vLLM compares
    assert folder(mine, hardware="mine", **asked)


def test_a_table_that_changed_is_another_start_wherever_it_lies(tmp_path: Path) -> None:
    def note(place: Path) -> Path:
        return kernel_cache.find(plan(operator={VARIABLE: str(place)}), tmp_path).note

    shutil.copytree(SHIPPED_TABLES, tmp_path / "copy")
    assert note(tmp_path / "copy") == note(Path(SHIPPED_TABLES))
    next((tmp_path / "copy").iterdir()).write_text("{}")
    assert note(tmp_path / "copy") != note(Path(SHIPPED_TABLES))
    (tmp_path / "copy/folder.json").mkdir()
    assert note(tmp_path / "copy") not in (note(Path(SHIPPED_TABLES)), note(tmp_path / "none"))


def test_a_shared_result_tells_tables_from_none_and_not_where_they_lie() -> None:
    def digested(value: str) -> str:
        return digest(plan(operator={VARIABLE: value}).to_json())

    here = digest(plan().to_json())
    assert digested("/opt/elsewhere/h200-kernels") == here
    assert len({here, digested(""), digested("/opt/tables")}) == 3
