"""NCCL settings and the order of GPUs follow from how they are connected, and say so."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.machine.nvml import Pair
from dsv4_serve.entrypoint.machine.topology import Topology
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select

CATALOG = Catalog([])


def board(near: Collection[tuple[int, int]] = (), *, nvlink: bool = False, count: int = 4) -> Topology:
    """Pairs in `near` share a switch, or NVLink connects all; everything else crosses the CPU."""
    pairs = (Pair(a, b, "PIX" if (a, b) in near else "SYS", nvlink) for a, b in combinations(range(count), 2))
    return Topology(tuple(range(count)), tuple(pairs))


def plan(topology: Topology, hardware: str = "rtx-pro-6000", size: int = 2, operator=None, **choices: str) -> Plan:
    request = Request(
        {name: Setting(value, "test") for name, value in choices.items()},
        command_line=Layer({"tensor-parallel-size": Setting(size, "test")}),
        operator=operator or {},
    )
    return resolve(select(CATALOG, request, lambda: HostGpus(hardware, "NVML", len(topology.gpus), topology)), request)


def test_without_nvlink_the_safe_set_is_chosen_with_its_reason() -> None:
    nccl = plan(board()).choices["nccl"]
    assert nccl.value == "p2p-off"
    assert nccl.origin.startswith("topology: GPUs 0 and 1 have no NVLink (SYS)")


def test_with_nvlink_nothing_is_set_and_that_is_said() -> None:
    resolved = plan(board(nvlink=True), "h200")
    assert resolved.choices["nccl"] == Setting(
        "none", "topology: NVLink connects GPUs 0 and 1, and NCCL chooses well there"
    )
    assert not any(name.startswith("NCCL_") for name in resolved.env)


def test_a_board_that_lost_its_nvlink_gets_what_pcie_needs() -> None:
    resolved = plan(board(), "h200")
    assert resolved.env["NCCL_P2P_DISABLE"].value == "1"
    assert resolved.flags["disable-custom-all-reduce"].origin == "nccl/p2p-off.toml [flags]"


def test_the_closest_gpus_come_first_and_none_is_hidden() -> None:
    env = plan(board({(0, 3), (1, 2)})).env
    assert env["CUDA_VISIBLE_DEVICES"] == Setting("0,3,1,2", "topology: GPUs 0 and 3 are the closest")
    assert env["CUDA_DEVICE_ORDER"].value == "PCI_BUS_ID"


def test_an_order_that_is_right_already_is_not_written_down() -> None:
    assert "CUDA_VISIBLE_DEVICES" not in plan(board({(0, 1), (2, 3)})).env


def test_an_order_that_the_operator_gave_stays() -> None:
    resolved = plan(board({(0, 3), (1, 2)}), operator={"CUDA_VISIBLE_DEVICES": "0,1,2,3"})
    assert "CUDA_VISIBLE_DEVICES" not in resolved.env


def test_a_set_that_is_named_wins_over_the_topology() -> None:
    assert plan(board(), nccl="p2p-on").choices["nccl"] == Setting("p2p-on", "test")


def test_hardware_that_is_named_keeps_the_set_of_its_profile_file() -> None:
    request = Request({"hardware": Setting("rtx-pro-6000", "test")})
    selection = select(CATALOG, request, lambda: HostGpus("h200", "NVML", 4, board(nvlink=True)))
    assert selection.reasons["nccl"] == Setting("p2p-off", "hardware/rtx-pro-6000.toml: nccl")


def test_every_set_for_pcie_switches_vllms_own_all_reduce_off() -> None:
    for name in CATALOG.names("nccl"):
        assert CATALOG.nccl(name, "").own.flags == {"disable-custom-all-reduce": True}
