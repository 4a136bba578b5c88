"""The shipped profiles: what they promise, and that the defaults fit."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog import listing
from dsv4_serve.entrypoint.catalog.catalog import SHIPPED, Catalog
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve import memory_inputs
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select
from tests.support.each import each

CATALOG = Catalog([])
GPUS = [name for name in CATALOG.names("hardware") if name != "cpu"]
PCIE = [name for name in GPUS if CATALOG.hardware(name, "").get("interconnect") == "pcie"]
TOO_SMALL = {("h100", 2), ("rtx-6000d", 2)}
"""Hardware and sizes on which no shipped model holds what every profile promises."""
FLASH = ["64k", "128k", "256k", "524k", "524k-3", "640k", "1m"]


def plan(**requested: str | int) -> Plan:
    size = requested.pop("size", None)
    flags = {"tensor-parallel-size": Setting(size, "test")} if size else {}
    flags |= {k.replace("_", "-"): Setting(requested.pop(k), "test") for k in list(requested) if k == "moe_backend"}
    request = Request({k: Setting(v, "test") for k, v in requested.items()}, command_line=Layer(flags))
    return resolve(select(CATALOG, request, lambda: HostGpus("h200", "test")), request)


def value(resolved: Plan, name: str) -> object:
    return resolved.settings()[name].value


@pytest.mark.parametrize(
    ("profile", "context", "requests", "sizes"),
    [
        ("64k", 65536, 4, [1, 2, 4, 8]),
        ("128k", 131072, 8, [1, 2, 4, 8]),
        ("256k", 262144, 4, [1, 2, 4, 8]),
        ("524k", 524288, 2, [1, 2, 4, 8]),
        ("524k-3", 524288, 3, [1, 2, 4, 8]),
        ("640k", 655360, 2, [1, 2, 4, 8]),
        ("1m", 1048576, 1, [1, 2, 4, 8]),
        ("throughput", 65536, 16, [1, 2, 4, 8]),
        ("shared", 65536, 64, [1, 2, 4, 8]),
        ("pro", 65536, 128, [1, 2, 4, 8, 16]),
        ("64k-dp", 65536, 16, [1, 2, 4, 8]),
        ("pro-dp", 65536, 16, [1, 2, 4, 8]),
    ],
)
def test_a_profile_is_what_its_name_says(profile: str, context: int, requests: int, sizes: list[int]) -> None:
    entry = next(e for e in listing.listing(CATALOG) if e["name"] == profile)
    assert (entry["context"], entry["requests"], entry["tensor-parallel-sizes"]) == (context, requests, sizes)


@each(
    "profile, hardware, size",
    [
        (profile, hardware, size)
        for profile, hardware, size in itertools.product(FLASH, GPUS, [2, 4])
        if (hardware, size) not in TOO_SMALL
    ],
)
def test_every_default_holds_what_its_profile_promises(profile: str, hardware: str, size: int) -> None:
    """As many full-length requests as the profile promises run at once, by the arithmetic of entrypoint/memory."""
    choices = {"profile": Setting(profile, "test"), "hardware": Setting(hardware, "test")}
    request = Request(choices, command_line=Layer({"tensor-parallel-size": Setting(size, "test")}))
    selection = select(CATALOG, request, lambda: HostGpus("h200", "test"))
    memory = memory_inputs.estimate(selection, resolve(selection, request).flags)
    assert memory is not None
    assert memory.steady_state_requests >= memory.requests


@pytest.mark.parametrize(
    ("hardware", "model", "draft_tokens"),
    [
        ("h200", "w4a16", "1 for 1 to 64 requests"),
        ("h200", "flash-0731", "5 for 1 to 64 requests"),
        ("b300", "w4a16", "1 for 1 to 16 requests, none for 17 to 64"),
        ("b300", "flash-0731", "5 for 1 to 4 requests, 3 for 5 to 16, none for 17 to 64"),
    ],
)
def test_shared_drafts_as_measured_or_fewer_for_many_requests_and_holds_what_it_promises(
    hardware: str, model: str, draft_tokens: str
) -> None:
    for size in (2, 4, 8):
        requested = Request(
            {"profile": Setting("shared", ""), "hardware": Setting(hardware, ""), "model": Setting(model, "")},
            command_line=Layer({"tensor-parallel-size": Setting(size, "test")}),
        )
        selection = select(CATALOG, requested, lambda: HostGpus("h200", "test"))
        resolved = resolve(selection, requested)
        assert resolved.choices["draft tokens"].value == draft_tokens
        memory = memory_inputs.estimate(selection, resolved.flags)
        assert memory is not None
        assert memory.steady_state_requests >= memory.requests == 64


def test_nvfp4_drafts_two_tokens_on_b300_and_one_elsewhere() -> None:
    drafts = {
        h: value(plan(profile="64k", hardware=h, model="nvfp4", size=4), "speculative-config.num_speculative_tokens")
        for h in GPUS
    }
    assert drafts == {h: 2 if h == "b300" else 1 for h in GPUS}


def test_pcie_boxes_get_our_all_reduce_settings_and_nvlink_boxes_none() -> None:
    assert PCIE == ["gb10", "rtx-6000d", "rtx-pro-6000", "rtx-pro-6000-max-q", "rtx-pro-6000-workstation"]
    for hardware in GPUS:
        resolved = plan(hardware=hardware, size=4)
        assert ("disable-custom-all-reduce" in resolved.flags) == (hardware in PCIE)
        assert any(name.startswith("NCCL_") for name in resolved.env) == (hardware in PCIE and hardware != "gb10")


def test_every_model_is_served_under_a_common_name_and_its_repository() -> None:
    for model in CATALOG.every_model():
        if repository := model.own.flags.get("model"):
            names = model.own.flags["served-model-name"]
            assert isinstance(names, list)
            assert repository in names or model.name == "acti"
            assert str(names[0]).startswith(("deepseek-v4-flash", "deepseek-v4-pro", "deepseek-v4.1-flash"))


def test_every_profile_file_says_where_its_figures_come_from() -> None:
    """A comment opens each file; a measured figure carries hardware, model, vLLM, date and source (a schema field each)."""
    for path in SHIPPED.rglob("*.toml"):
        assert path.read_text(encoding="utf-8").startswith("# "), path
    for path in Path(SHIPPED).glob("*.toml"):
        text = path.read_text(encoding="utf-8")
        assert "[[measured]]" in text or "unmeasured" in text or path.name == "base.toml", path


def test_hardware_without_a_figure_of_its_own_says_so() -> None:
    measured = {"b300", "h200", "rtx-pro-6000", "rtx-pro-6000-max-q", "rtx-pro-6000-workstation"}
    assert {name for name in GPUS if "unmeasured" not in CATALOG.hardware(name, "").own.about} == measured
