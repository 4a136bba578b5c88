"""Hosts with more than a pair of GPUs: which GPUs make a replica, which NCCL set they get, and what vLLM does itself."""

from __future__ import annotations

import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.containers.placement import place
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.machine.nvml import ANCESTORS, Pair
from dsv4_serve.entrypoint.machine.topology import Topology, choose_set, groups
from tests.support.plans import request, resolved

HOSTS: dict[str, Any] = tomllib.loads((Path(__file__).parent / "recorded/topologies.toml").read_text())


def topology(name: str) -> Topology:
    """The topology of a host; what is connected by NVLink has no other level in `topo -m`."""
    host = HOSTS[name]
    links = [row.split() for row in host["rows"]]
    count = len(links) + 1
    assert [len(row) for row in links] == list(range(count - 1, 0, -1)), name
    pairs = []
    for a, b in combinations(range(count), 2):
        word = links[a][b - a - 1]
        linked = word.startswith("NV")
        assert linked or word in ANCESTORS.values(), word
        pairs.append(Pair(a, b, "SYS" if linked else word, linked, "ok", "ok"))
    return Topology(tuple(range(count)), tuple(pairs), nodes=tuple(host["numa"]))


SIDE_BY_SIDE = {
    "h100-sxm-x8": [(0, 1), (2, 3), (4, 5), (6, 7)],
    "h100-x4": [(0, 1), (2, 3)],
    "l40s-x4": [(0, 1), (2, 3)],
    "t4-x4": [(1, 2), (0, 3)],
    "mixed-x5": [(1, 2), (3, 4)],
    "v100-x8": [(0, 1), (2, 3), (4, 5), (6, 7)],
    "h200-nvl-x8": [(0, 1), (2, 3), (4, 5), (6, 7)],
    "h200-nvl-x8-pairs": [(0, 1), (2, 3), (4, 5), (6, 7)],
    "rtx-pro-6000-x8": [(0, 1), (2, 3), (4, 5), (6, 7)],
}
"""The pairs that replicas at TP=2 get, closest first."""


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_replicas_of_two_get_the_closest_pairs(name: str) -> None:
    assert groups(topology(name), 2) == SIDE_BY_SIDE[name]


@pytest.mark.parametrize(
    ("name", "fours"),
    [
        ("h200-nvl-x8", [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("h200-nvl-x8-pairs", [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("v100-x8", [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("rtx-pro-6000-x8", [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("mixed-x5", [(1, 2, 3, 4)]),
    ],
)
def test_replicas_of_four_stay_within_a_bridge_or_a_socket(name: str, fours: list[tuple[int, ...]]) -> None:
    assert groups(topology(name), 4) == fours
    assert list(place(topology(name), 4)) == fours


SETS = [
    ("h100-sxm-x8", 2, "none"),
    ("h100-sxm-x8", 8, "none"),
    ("h100-x4", 4, "none"),
    ("h200-nvl-x8", 4, "none"),
    ("h200-nvl-x8", 8, "nvlink-only"),
    ("h200-nvl-x8-pairs", 2, "none"),
    ("h200-nvl-x8-pairs", 4, "nvlink-only"),
    ("v100-x8", 4, "none"),
    ("v100-x8", 8, "nvlink-only"),
    ("l40s-x4", 2, "p2p-off"),
    ("l40s-x4", 4, "p2p-off"),
    ("rtx-4090-x8", 8, "p2p-off"),
    ("rtx-pro-6000-x8", 2, "p2p-off"),
    ("rtx-pro-6000-x8", 4, "p2p-off"),
    ("rtx-pro-6000-x8", 8, "p2p-off"),
]


@pytest.mark.parametrize(("name", "size", "nccl"), SETS)
def test_the_nccl_set_follows_the_links_of_the_whole_group(name: str, size: int, nccl: str) -> None:
    chosen, reason = choose_set(topology(name), groups(topology(name), size)[0])
    assert chosen == nccl, reason


@pytest.mark.parametrize(
    ("name", "size", "hardware", "own_off"),
    [
        ("h100-sxm-x8", 8, "h100", False),
        ("h200-nvl-x8", 4, "h200-nvl", False),
        # vLLM turns its own all-reduce off itself where NVLink connects some of more than two
        ("h200-nvl-x8", 8, "h200-nvl", False),
        ("l40s-x4", 2, "h200-nvl", True),  # a pair of H200 NVL without its bridge
        ("l40s-x4", 4, "h200-nvl", True),
        ("rtx-pro-6000-x8", 2, "rtx-pro-6000", True),
        ("rtx-pro-6000-x8", 8, "rtx-pro-6000", True),
    ],
)
def test_vllms_own_all_reduce_is_off_where_only_pcie_connects(
    name: str, size: int, hardware: str, *, own_off: bool
) -> None:
    gpus = HostGpus(hardware, "test", len(topology(name).gpus), topology(name))
    plan = resolved(request(profile="64k", model="w4a16", tensor_parallel_size=size), gpus=gpus)
    assert bool(plan.value("disable-custom-all-reduce", otherwise=False)) == own_off


def test_the_gpu_that_is_alone_on_its_socket_comes_last() -> None:
    four = HostGpus("rtx-pro-6000", "test", 4, topology("t4-x4"))
    plan = resolved(request(profile="64k", tensor_parallel_size=2), gpus=four)
    assert plan.env["CUDA_VISIBLE_DEVICES"].value == "1,2,0,3"
    assert plan.env["CUDA_VISIBLE_DEVICES"].origin == "topology: the closest GPUs are 1, 2"


@pytest.mark.parametrize(("name", "nccl"), [("h200-nvl-x8-pairs", "nvlink-only"), ("h100-x4", "none")])
def test_data_parallel_replicas_that_share_experts_get_the_set_of_all_of_them(name: str, nccl: str) -> None:
    gpus = HostGpus("h200-nvl", "test", len(topology(name).gpus), topology(name))
    plan = resolved(request(profile="64k-dp", model="flash"), gpus=gpus)
    assert plan.choices["nccl"].value == nccl


def test_a_replica_that_spans_hosts_keeps_the_network_on() -> None:
    gpus = HostGpus("rtx-pro-6000", "test", 4, topology("l40s-x4"))
    spread = resolved(request(profile="64k", tensor_parallel_size=8, nnodes=2), gpus=gpus)
    assert spread.choices["nccl"].value == "p2p-off-nodes"
    assert "NCCL_IB_DISABLE" not in spread.env
    alone = resolved(request(profile="64k", tensor_parallel_size=4), gpus=gpus)
    assert alone.env["NCCL_IB_DISABLE"].value == "1"
    plan = resolved(request(profile="64k", tensor_parallel_size=8, nnodes=2, nccl="p2p-off"), gpus=gpus)
    assert plan.choices["nccl"].value == "p2p-off"


def test_choosing_among_sixteen_gpus_takes_no_time() -> None:
    pairs = tuple(Pair(a, b, "PIX" if a // 4 == b // 4 else "SYS") for a, b in combinations(range(16), 2))
    assert groups(Topology(tuple(range(16)), pairs), 8)[0] == tuple(range(8))
