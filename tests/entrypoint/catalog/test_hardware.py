"""Hardware by name: NVML's names, what cannot serve and why, and files of one's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog import unsupported
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.memory.estimate import weights_gib
from tests.support.plans import CATALOG, request, resolved

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("h200", "h200"),
        ("H200", "h200"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA-H200-NVL", "h200-nvl"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("nvidia rtx pro 6000 blackwell max-q workstation edition", "rtx-pro-6000-max-q"),
        ("RTX_PRO_6000", "rtx-pro-6000"),
        ("NVIDIA GB10", "gb10"),
    ],
)
def test_hardware_is_named_as_its_file_or_as_nvml_names_it(text: str, name: str) -> None:
    assert CATALOG.hardware(text, "test").name == name


@pytest.mark.parametrize("name", ["h20o", "h800", "gh20", "rtx-pro-600", "rtx-6000", "b30", "h200x", "rtx 6000"])
def test_no_hint_crosses_to_other_hardware(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^test: there is no hardware '{name}'. Known: ") as caught:
        CATALOG.hardware(name, "test")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a100", "SM 8.0 or 8.6"),
        ("NVIDIA A100-SXM4-80GB", "SM 8.0 or 8.6"),
        ("NVIDIA RTX A6000", "SM 8.0 or 8.6"),
        ("rtx-3090", "SM 8.0 or 8.6"),
        ("L40S", "SM 8.9"),
        ("NVIDIA GeForce RTX 4090", "SM 8.9"),
        ("4090", "SM 8.9"),
        ("NVIDIA RTX 6000 Ada Generation", "SM 8.9"),
        ("rtx-5090", "at most 32 GB"),
        ("NVIDIA GeForce RTX 5090", "at most 32 GB"),
        ("mi300x", "AMD"),
        ("AMD Instinct MI355X", "AMD"),
        ("ascend-910b", "vllm-ascend"),
        ("910B", "vllm-ascend"),
        ("V100", "older than SM 8.0"),
    ],
)
def test_what_cannot_serve_is_answered_by_name_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(name)} cannot serve DeepSeek-V4 here: .*{reason}") as caught:
        CATALOG.hardware(name, "test")
    assert "--" not in str(caught.value)


def test_four_geforce_are_too_small_for_every_shipped_model() -> None:
    models = [model for model in CATALOG.every_model() if model.get("weights_gib")]
    on_four = min(weights_gib(model.get("weights_gib"), model.get("replicated_gib"), 4) for model in models)
    assert on_four > unsupported.GEFORCE_GB
    assert f"takes {on_four:.0f} GiB" in unsupported.by_name("rtx-5090")


def test_a_hardware_file_gets_the_settings_of_its_architecture_and_runs_every_shipped_profile(folder: Write) -> None:
    text = 'nvml-names = ["NVIDIA Z999"]\ncompute-capability = "{}"\nmemory-gib = 150\ninterconnect = "pcie"\n'
    mine = {f"hardware/mine-{c.replace('.', '')}.toml": text.format(c) for c in unsupported.SERVED}
    catalog = Catalog([folder(mine)])
    for capability in unsupported.SERVED:
        hardware = f"mine-{capability.replace('.', '')}"
        for profile in ("64k", "128k", "256k", "524k", "524k-3", "640k", "1m", "throughput"):
            plan = resolved(request(hardware=hardware, profile=profile), catalog)
            assert plan.settings()["gpu-memory-utilization"].origin.startswith("architectures/gpu.toml")
            assert ("disable-custom-all-reduce" in plan.flags) == capability.startswith("12")


@pytest.mark.parametrize("value", ["inf", "nan", "1e308", "true", "0", "-1", '"96"'])
def test_memory_is_a_number_of_gib(folder: Write, value: str) -> None:
    with pytest.raises(ConfigError, match="memory-gib"):
        Catalog([folder({"hardware/mine.toml": f'extends = "h200"\nmemory-gib = {value}\n'})]).hardware("mine", "test")


def test_every_name_of_nvml_is_accepted_and_belongs_to_one_file() -> None:
    owners = [(name, file.name) for file in CATALOG.every_hardware() for name in file.own.nvml_names]
    assert len({name for name, _ in owners}) == len(owners)
    for name, file in owners:
        assert CATALOG.hardware(name, "test").name == file
        assert not unsupported.by_name(name)
