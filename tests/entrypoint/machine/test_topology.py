"""Topology: recordings replayed, and sysfs trees as the kernel writes them."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.doctor import registry
from dsv4_serve.entrypoint.machine import pci
from dsv4_serve.entrypoint.machine.nvml import ANCESTORS, Driver, Gpu, Pair
from dsv4_serve.entrypoint.machine.requirements import HostRequirements
from dsv4_serve.entrypoint.machine.topology import Topology, choose_set, closest, distance, groups, read_topology
from dsv4_serve.entrypoint.problem import Problem
from tests.support.checks import problems
from tools import record_host

RECORDED = Path(__file__).parent / "recorded"
P2P_ON = HostRequirements(interconnect="pcie", custom_all_reduce=False, env={"NCCL_P2P_LEVEL": "SYS"})
P2P_OFF = HostRequirements(interconnect="pcie", custom_all_reduce=False, env={"NCCL_P2P_DISABLE": "1"})


def replay(name: str) -> Topology:
    return record_host.load((RECORDED / f"{name}.json").read_text()).machine.topology


def found(topology: Topology, required: HostRequirements) -> dict[str, Problem]:
    return problems(registry.TOPOLOGY, topology, required)


def nvlinked(count: int) -> Topology:
    """A board where NVSwitch connects every pair."""
    pairs = tuple(Pair(a, b, "NODE", True, "ok", "ok") for a, b in combinations(range(count), 2))
    return Topology(tuple(range(count)), pairs, "unknown", None, (None,) * count)


# Which GPUs make a replica


def test_each_replica_of_two_gets_the_gpus_behind_one_switch() -> None:
    four = replay("rtx-pro-6000-x4")
    assert closest(four, 2) == (0, 1)
    assert groups(four, 2) == [(0, 1), (2, 3)]
    assert groups(four, 4) == [(0, 1, 2, 3)]


def test_the_order_of_the_slots_does_not_matter() -> None:
    near = {(0, 3), (1, 2)}
    pairs = tuple(Pair(a, b, "PIX" if (a, b) in near else "SYS") for a, b in combinations(range(4), 2))
    assert groups(Topology((0, 1, 2, 3), pairs), 2) == [(0, 3), (1, 2)]


def test_nvlink_is_closer_than_any_switch_and_the_worst_step_decides() -> None:
    bridged = {(0, 2): "NODE", (0, 1): "PIX", (1, 2): "NODE"}
    pairs = tuple(Pair(a, b, level, nvlink=(a, b) == (0, 2)) for (a, b), level in bridged.items())
    assert closest(Topology((0, 1, 2), pairs), 2) == (0, 2)
    level = {(0, 1): "PIX", (0, 2): "PIX", (1, 2): "SYS"}
    four = Topology((0, 1, 2, 3), tuple(Pair(a, b, level.get((a, b), "NODE")) for a, b in combinations(range(4), 2)))
    assert closest(four, 3) == (0, 1, 3)


def test_too_few_gpus_make_no_group() -> None:
    assert closest(replay("rtx-pro-6000-x2"), 4) == ()
    assert groups(replay("rtx-pro-6000-x2"), 4) == []


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.sampled_from([*ANCESTORS.values()]), min_size=15, max_size=15))
    )
)
def test_groups_are_disjoint_and_the_first_is_the_closest(drawn: tuple[int, list[str]]) -> None:
    count, levels = drawn
    pairs = tuple(Pair(a, b, level) for (a, b), level in zip(combinations(range(count), 2), levels, strict=False))
    topology = Topology(tuple(range(count)), pairs)
    made = groups(topology, 2)
    assert len(made) == count // 2
    assert len({gpu for group in made for gpu in group}) == 2 * len(made)
    assert distance(topology, made[0]) == min(distance(topology, pair) for pair in combinations(range(count), 2))


def test_distant_gpus_are_reported_with_closer_ones_to_use() -> None:
    four = replay("rtx-pro-6000-x4")
    crossed = dataclasses.replace(four, gpus=(0, 2, 1, 3))
    problem = found(crossed, P2P_OFF)["closest-gpus"]
    assert not problem.fatal
    assert problem.fix.endswith("CUDA_VISIBLE_DEVICES=0,1")
    assert "closest-gpus" not in found(four, P2P_OFF)
    assert "closest-gpus" not in found(crossed, dataclasses.replace(P2P_OFF, group=4, gpus=4))


# Which NCCL settings they get


@pytest.mark.parametrize(
    ("name", "because"),
    [("rtx-pro-6000-x2", "unproven"), ("rtx-pro-6000-x2-translated", "the IOMMU translates")],
)
def test_pcie_boxes_get_no_peer_access_by_themselves(name: str, because: str) -> None:
    topology = replay(name)
    nccl, reason = choose_set(topology, closest(topology, 2))
    assert nccl == "p2p-off"
    assert because in reason
    assert nccl in Catalog([]).names("nccl")


def test_nvlink_gets_no_settings_and_neither_does_one_gpu() -> None:
    assert choose_set(nvlinked(8), tuple(range(8)))[0] == "none"
    assert choose_set(replay("rtx-pro-6000-x2"), (0,))[0] == "none"


def test_acs_and_a_refusing_driver_are_reported_as_reasons() -> None:
    two = replay("rtx-pro-6000-x2")
    redirected = dataclasses.replace(two, redirecting=("0000:20:01.1",))
    assert "ACS redirects peer traffic at 0000:20:01.1" in choose_set(redirected, (0, 1))[1]
    refused = dataclasses.replace(two, pairs=(Pair(0, 1, "SYS", False, "chipset", "chipset"),))
    assert "the driver does not allow peer access between GPUs 0 and 1" in choose_set(refused, (0, 1))[1]


def test_the_hang_of_vllm_51513_is_refused_before_it_happens() -> None:
    translated = replay("rtx-pro-6000-x2-translated")
    stock = HostRequirements(interconnect="pcie")
    assert set(found(translated, stock)) == {"custom-all-reduce", "peer-access"}
    assert set(found(translated, dataclasses.replace(stock, env={"NCCL_P2P_DISABLE": "1"}))) == {"custom-all-reduce"}
    assert set(found(translated, P2P_ON)) == {"peer-access"}
    assert not found(translated, P2P_OFF)


def test_a_box_without_obstacles_may_try_peer_access() -> None:
    assert not found(replay("rtx-pro-6000-x2"), P2P_ON)


def test_vllms_own_all_reduce_is_left_alone_where_it_works_or_switches_itself_off() -> None:
    assert not found(nvlinked(2), HostRequirements(interconnect="nvlink"))
    four = dataclasses.replace(P2P_OFF, gpus=4, group=4, custom_all_reduce=True)
    assert "custom-all-reduce" not in found(replay("rtx-pro-6000-x4"), four)


def test_pcie_settings_on_nvlink_are_reported() -> None:
    assert "nvlink-unused" in found(nvlinked(2), dataclasses.replace(P2P_OFF, interconnect="nvlink"))


def test_missing_nvlink_is_reported_where_the_hardware_has_it() -> None:
    half = nvlinked(2)
    half = dataclasses.replace(half, pairs=(dataclasses.replace(half.pairs[0], nvlink=False),))
    problems = found(half, HostRequirements(interconnect="nvlink", hardware="h200"))
    assert not problems["nvlink-up"].fatal
    assert "GPUs 0 and 1" in problems["custom-all-reduce"].seen


# Reading sysfs


def acs(control: int) -> bytes:
    """A bridge's configuration space: an AER capability (1) at 0x100, then ACS (0xD) at 0x148 with this control."""
    space = bytearray(4096)
    space[0x100:0x104] = (0x148 << 20 | 1 << 16 | 0x0001).to_bytes(4, "little")
    space[0x148:0x14C] = (1 << 16 | 0x000D).to_bytes(4, "little")
    space[0x14E:0x150] = control.to_bytes(2, "little")
    return bytes(space)


def sysfs(root: Path, *, bridge: bytes | None, group: str = "", node: str = "0") -> Path:
    """Two GPUs below one root port each."""
    links = root / "sys/bus/pci/devices"
    links.mkdir(parents=True)
    for number, (port, gpu) in enumerate([("0000:20:01.1", "0000:21:00.0"), ("0000:40:01.1", "0000:41:00.0")]):
        device = root / f"sys/devices/pci0000:{port[5:7]}" / port / gpu
        device.mkdir(parents=True)
        if bridge is not None:
            (device.parent / "config").write_bytes(bridge)
        (device / "numa_node").write_text(f"{node}\n")
        (links / gpu).symlink_to(device)
        if group:
            kept = root / "sys/kernel/iommu_groups" / str(number)
            kept.mkdir(parents=True)
            (kept / "type").write_text(f"{group}\n")
            (device / "iommu_group").symlink_to(kept)
    (root / "sys/class/iommu").mkdir(parents=True)
    return root


GPUS = Driver(
    "580.126.09",
    13000,
    (Gpu(0, bus="00000000:21:00.0"), Gpu(1, bus="00000000:41:00.0"), Gpu(2, error="GPU is lost")),
    (Pair(0, 1, "NODE", False, "ok", "ok"),),
)


@pytest.mark.parametrize(
    ("group", "state"), [("DMA", "translated"), ("DMA-FQ", "translated"), ("identity", "passthrough"), ("", "off")]
)
def test_the_iommu_is_read_from_the_groups_of_the_gpus(tmp_path: Path, group: str, state: str) -> None:
    assert read_topology(GPUS, (0, 1, 2), sysfs(tmp_path, bridge=acs(0), group=group)).iommu == state


def test_a_host_without_sysfs_leaves_the_iommu_unknown(tmp_path: Path) -> None:
    assert pci.iommu(["00000000:21:00.0"], tmp_path) == "unknown"
    assert pci.redirecting("00000000:21:00.0", tmp_path) is None
    assert pci.numa_node("00000000:21:00.0", tmp_path) is None


@pytest.mark.parametrize(
    ("control", "redirecting"),
    [(0b11101, ("0000:20:01.1", "0000:40:01.1")), (0b00001, ()), (0b00100, ("0000:20:01.1", "0000:40:01.1"))],
)
def test_bridges_that_redirect_peer_traffic_are_found(
    tmp_path: Path, control: int, redirecting: tuple[str, ...]
) -> None:
    topology = read_topology(GPUS, (0, 1, 2), sysfs(tmp_path, bridge=acs(control)))
    assert topology.redirecting == redirecting
    assert topology.gpus == (0, 1)
    assert topology.nodes == (0, 0)


@pytest.mark.parametrize("space", [None, acs(0b11101)[:64], acs(0b11101)[:256]])
def test_what_an_ordinary_user_cannot_read_is_left_open(tmp_path: Path, space: bytes | None) -> None:
    assert read_topology(GPUS, (0, 1), sysfs(tmp_path, bridge=space)).redirecting is None


@given(st.binary(min_size=256, max_size=600))
def test_any_configuration_space_is_read_to_an_end(space: bytes) -> None:
    assert pci._control(space) in range(1 << 16)


def test_a_host_with_one_numa_node_says_none(tmp_path: Path) -> None:
    assert read_topology(GPUS, (0, 1), sysfs(tmp_path, bridge=None, node="-1")).nodes == (None, None)


# More than a pair


def islands(*parts: tuple[int, ...], between: str = "SYS") -> Topology:
    """GPUs with NVLink within each part, and none between them."""
    order = tuple(sorted(gpu for part in parts for gpu in part))
    linked = {frozenset(pair) for part in parts for pair in combinations(part, 2)}
    pairs = tuple(
        Pair(a, b, "NODE" if frozenset((a, b)) in linked else between, frozenset((a, b)) in linked, "ok", "ok")
        for a, b in combinations(order, 2)
    )
    return Topology(order, pairs)


def test_two_bridged_pairs_serve_as_pairs_and_together_keep_nvlink() -> None:
    four = islands((0, 2), (1, 3))
    assert groups(four, 2) == [(0, 2), (1, 3)]
    assert choose_set(four, (0, 2))[0] == "none"
    name, reason = choose_set(four, (0, 1, 2, 3))
    assert (name, reason) == (
        "nvlink-only",
        "NVLink connects some of GPUs 0 to 3, and peer access over PCIe is unproven",
    )
    env = {str(k): str(v) for k, v in Catalog([]).nccl(name, "").own.env.items()}
    required = HostRequirements(gpus=4, group=4, interconnect="nvlink", env=env)
    translated = dataclasses.replace(four, iommu="translated")
    assert {"peer-access", "nvlink-unused"}.isdisjoint(found(translated, required))
    off = HostRequirements(gpus=4, group=4, interconnect="nvlink", env={"NCCL_P2P_DISABLE": "1"})
    assert "some of GPUs 0, 1, 2, 3" in found(four, off)["nvlink-unused"].seen


def test_two_boards_of_four_make_two_replicas_of_four() -> None:
    eight = islands((0, 1, 4, 5), (2, 3, 6, 7))
    assert groups(eight, 4) == [(0, 1, 4, 5), (2, 3, 6, 7)]
    assert choose_set(eight, (0, 1, 4, 5))[0] == "none"
    assert choose_set(eight, tuple(range(8)))[0] == "nvlink-only"


def test_eight_gpus_behind_switches_of_two_sockets_make_close_groups_whatever_their_slots() -> None:
    """Two under each switch, four under each socket; the slots alternate between the sockets."""
    socket, switch = {gpu: gpu % 2 for gpu in range(8)}, {gpu: gpu % 4 for gpu in range(8)}

    def level(a: int, b: int) -> str:
        return "PIX" if switch[a] == switch[b] else "NODE" if socket[a] == socket[b] else "SYS"

    eight = Topology(tuple(range(8)), tuple(Pair(a, b, level(a, b)) for a, b in combinations(range(8), 2)))
    assert groups(eight, 2) == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert groups(eight, 4) == [(0, 2, 4, 6), (1, 3, 5, 7)]
    assert groups(eight, 8) == [tuple(range(8))]
    name, reason = choose_set(eight, (0, 2, 4, 6))
    assert name == "p2p-off"
    assert "(NODE)" in reason
    assert "(SYS)" in choose_set(eight, tuple(range(8)))[1]
