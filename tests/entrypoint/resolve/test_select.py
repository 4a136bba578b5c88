"""Which profile files a plan is made from, and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.machine.nvml import Pair
from dsv4_serve.entrypoint.machine.topology import Topology
from dsv4_serve.entrypoint.plan import Plan, Setting
from tests.support.plans import CATALOG, request, resolved, selected

Write = Callable[[Mapping[str, str]], Path]


# Models


@pytest.mark.parametrize(
    ("requested", "model"),
    [
        ({"profile": "524k", "hardware": "rtx-pro-6000"}, "flash-0731-nvfp4"),
        ({"profile": "1m", "hardware": "rtx-pro-6000-max-q"}, "flash-0731"),
        ({"profile": "524k-3", "hardware": "rtx-pro-6000"}, "flash-0731"),
        ({"profile": "64k", "hardware": "rtx-6000d"}, "acti"),
        ({"profile": "64k", "hardware": "rtx-6000d", "tensor_parallel_size": 4}, "flash-0731"),
        ({"profile": "524k", "hardware": "gb10"}, "flash-0731"),
        ({"profile": "pro", "hardware": "rtx-pro-6000", "tensor_parallel_size": 16}, "pro"),
        ({"profile": "64k", "hardware": "rtx-pro-6000"}, "flash-0731-nvfp4"),
        ({"profile": "524k", "hardware": "rtx-pro-6000", "tensor_parallel_size": 4}, "flash-0731-nvfp4"),
        ({"profile": "524k", "hardware": "h200"}, "w4a16"),
        ({"profile": "524k", "hardware": "b300"}, "nvfp4"),
        ({"profile": "pro", "hardware": "b300"}, "pro-nvfp4"),
        ({"profile": "pro", "hardware": "h200"}, "pro"),
        ({"profile": "v41", "hardware": "h200"}, "v41-flash"),
    ],
)
def test_the_default_model_comes_with_its_reason(requested: dict[str, Any], model: str) -> None:
    named = resolved(request(**requested)).choices["model-name"]
    assert named.value == model
    assert re.search(r"\w+ \w+ \w+", named.origin), "a reason, not only a place"


def test_the_reason_of_a_default_model_is_that_of_the_hardware() -> None:
    named = selected(request(profile="1m", hardware="rtx-pro-6000-max-q")).reasons["model-name"]
    assert named.value == "flash-0731"
    assert "79 GiB" in named.origin


@pytest.mark.parametrize(("model", "profile"), [(None, "64k"), ("acti", "64k"), ("pro", "pro")])
def test_a_hardware_may_have_a_default_profile_of_its_own_for_the_models_that_it_serves(
    model: str | None, profile: str
) -> None:
    """Two RTX 6000D have no room for one request of 524,288 tokens."""
    found = selected(request(hardware="rtx-6000d", **({"model": model} if model else {})))
    assert found.profile.name == profile
    assert selected(request(hardware="rtx-6000d", profile="524k")).profile.name == "524k"


@pytest.mark.parametrize("model", ["x" * 300, "acti=" + "x" * 300])
def test_a_model_that_the_file_system_cannot_look_up_is_reported(model: str) -> None:
    with pytest.raises(ConfigError, match=r"^test: cannot read 'x+' .File name too long.\.$"):
        selected(request(model=model, hardware="h200"))


def test_a_model_cannot_set_the_size_that_it_is_selected_by(folder: Write) -> None:
    mounted = folder({"models/mine.toml": 'extends = "acti"\n[flags]\ntensor-parallel-size = 4\n'})
    with pytest.raises(ConfigError, match="set it in a profile"):
        selected(request(model="mine", hardware="h200"), Catalog([mounted]))


@pytest.mark.parametrize(
    ("model", "name", "where"),
    [
        ("w4a16", "w4a16", None),
        ("canada-quant/DeepSeek-V4-Flash-NVFP4-FP8-MTP", "nvfp4", None),
        ("w4a16=/models/mine", "w4a16", "/models/mine"),
        ("nvfp4=me/mine", "nvfp4", "me/mine"),
    ],
)
def test_a_model_is_named_by_its_name_its_repository_or_a_place(model: str, name: str, where: str | None) -> None:
    selection = selected(request(model=model, hardware="h200"))
    assert selection.model.name == name
    assert (selection.where.value if selection.where else None) == where


# Tensor parallel size


def test_the_size_of_the_selection_is_that_of_the_plan(folder: Write) -> None:
    mounted = Catalog([folder({"mine.toml": 'extends = "524k"\n[flags]\ntensor-parallel-size = 4\n'})])
    for requested in (request(profile="mine", hardware="h200"), request(hardware="h200", tensor_parallel_size=4)):
        assert (
            selected(requested, mounted).tensor_parallel_size == resolved(requested, mounted).tensor_parallel_size == 4
        )
    assert selected(request(hardware="h200")).tensor_parallel_size == 2


# NCCL and the order of GPUs


def board(near: Collection[tuple[int, int]] = (), *, nvlink: bool = False, count: int = 4) -> Topology:
    """Pairs in `near` share a switch, or NVLink connects all; everything else crosses the CPU."""
    pairs = (Pair(a, b, "PIX" if (a, b) in near else "SYS", nvlink) for a, b in combinations(range(count), 2))
    return Topology(tuple(range(count)), tuple(pairs))


def plan(topology: Topology, hardware: str = "rtx-pro-6000", **requested: Any) -> Plan:
    gpus = HostGpus(hardware, "NVML", len(topology.gpus), topology)
    return resolved(request(tensor_parallel_size=2, **requested), gpus=gpus)


def test_without_nvlink_the_safe_set_is_selected_with_its_reason() -> None:
    nccl = plan(board()).choices["nccl"]
    assert nccl.value == "p2p-off"
    assert nccl.origin.startswith("topology: GPUs 0 and 1 have no NVLink (SYS)")


def test_with_nvlink_nothing_is_set_and_the_origin_says_so() -> None:
    on_nvlink = plan(board(nvlink=True), "h200")
    assert on_nvlink.choices["nccl"] == Setting(
        "none", "topology: NVLink connects GPUs 0 and 1, and NCCL's defaults suit it"
    )
    assert not any(name.startswith("NCCL_") for name in on_nvlink.env)


def test_a_board_that_lost_its_nvlink_gets_what_pcie_needs() -> None:
    on_pcie = plan(board(), "h200")
    assert on_pcie.env["NCCL_P2P_DISABLE"].value == "1"
    assert on_pcie.flags["disable-custom-all-reduce"].origin == "nccl/p2p-off.toml [flags]"


def test_the_closest_gpus_come_first_and_none_is_hidden() -> None:
    env = plan(board({(0, 3), (1, 2)})).env
    assert env["CUDA_VISIBLE_DEVICES"] == Setting("0,3,1,2", "topology: the closest GPUs are 0, 3")
    assert env["CUDA_DEVICE_ORDER"].value == "PCI_BUS_ID"


def test_an_order_that_is_right_already_is_not_written_down() -> None:
    assert "CUDA_VISIBLE_DEVICES" not in plan(board({(0, 1), (2, 3)})).env


def test_an_order_that_the_operator_gave_stays() -> None:
    given = plan(board({(0, 3), (1, 2)}), operator={"CUDA_VISIBLE_DEVICES": "0,1,2,3"}).env["CUDA_VISIBLE_DEVICES"]
    assert given == Setting("0,1,2,3", "environment CUDA_VISIBLE_DEVICES")


def test_a_set_that_is_named_wins_over_the_topology() -> None:
    assert plan(board(), nccl="p2p-on").choices["nccl"] == Setting("p2p-on", "test")


def test_another_nccl_set_replaces_the_first_one_whole() -> None:
    assert "NCCL_P2P_DISABLE" not in resolved(request(hardware="rtx-pro-6000", nccl="p2p-on")).env
    without = resolved(request(hardware="rtx-pro-6000", nccl="none")).env
    assert not any(name.startswith("NCCL_") for name in without)


def test_hardware_that_is_named_keeps_the_set_of_its_profile_file() -> None:
    gpus = HostGpus("h200", "NVML", 4, board(nvlink=True))
    selection = selected(request(hardware="rtx-pro-6000"), gpus=gpus)
    assert selection.reasons["nccl"] == Setting("p2p-off", "architectures/sm-12.0.toml: nccl")


def test_every_set_for_pcie_switches_vllms_own_all_reduce_off() -> None:
    for name in CATALOG.names("nccl"):
        assert ("disable-custom-all-reduce" in CATALOG.nccl(name, "").own.flags) == name.startswith("p2p")
