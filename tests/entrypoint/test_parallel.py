"""GPUs and nodes are counted as vLLM counts them."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4_serve.entrypoint import replica
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.parallel import Parallel, parallel, parallel_of
from dsv4_serve.entrypoint.plan import Setting
from tests.support.plans import request, resolved


@pytest.mark.parametrize(
    ("flags", "gpus", "node_gpus", "nodes_of_replica", "expert_gpus"),
    [
        ({}, 1, 1, 1, 1),
        ({"tensor-parallel-size": 8}, 8, 8, 1, 8),
        ({"data-parallel-size": 8}, 8, 8, 1, 8),
        ({"tensor-parallel-size": 4, "pipeline-parallel-size": 2, "nnodes": 2}, 8, 4, 2, 4),
        ({"tensor-parallel-size": 8, "decode-context-parallel-size": 8}, 8, 8, 1, 8),
        ({"data-parallel-size": 16, "nnodes": 2}, 16, 8, 1, 16),
        ({"data-parallel-size": 16, "data-parallel-size-local": 8}, 16, 8, 1, 16),
        ({"data-parallel-size": 2, "tensor-parallel-size": 8, "nnodes": 4}, 16, 4, 2, 16),
        (
            {"data-parallel-size": 2, "tensor-parallel-size": 8, "nnodes": 4, "data-parallel-size-local": 1},
            16,
            4,
            2,
            16,
        ),
        ({"data-parallel-size": 4, "data-parallel-rank": 0}, 4, 1, 1, 4),
        ({"data-parallel-size": 4, "data-parallel-rank": None}, 4, 4, 1, 4),
        ({"data-parallel-size": 4, "data-parallel-external-lb": True, "nnodes": 4}, 4, 1, 1, 4),
        ({"data-parallel-size": 2, "tensor-parallel-size": 8, "data-parallel-rank": 1, "nnodes": 4}, 16, 4, 2, 16),
        ({"nnodes": 2, "tensor-parallel-size": "auto"}, 1, 1, 2, 1),
    ],
)
def test_gpus_are_counted_as_vllm_counts_them(
    flags: dict[str, Any], gpus: int, node_gpus: int, nodes_of_replica: int, expert_gpus: int
) -> None:
    shape = parallel_of({name: Setting(value, "here") for name, value in flags.items()})
    assert (shape.gpus, shape.node_gpus, shape.nodes_of_replica, shape.expert_gpus) == (
        gpus,
        node_gpus,
        nodes_of_replica,
        expert_gpus,
    )


def test_switches_and_ranks_are_read() -> None:
    flags = {"enable-expert-parallel": Setting(True, ""), "headless": Setting(True, ""), "node-rank": Setting(1, "")}
    assert parallel_of(flags) == Parallel(expert=True, headless=True, node_rank=1)


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({}, "tp1"),
        ({"tensor-parallel-size": 2, "enable-expert-parallel": True}, "tp2"),
        ({"data-parallel-size": 4, "enable-expert-parallel": True}, "tp1-dp4-ep"),
        ({"tensor-parallel-size": 2, "pipeline-parallel-size": 2, "nnodes": 2}, "tp2-pp2-n2"),
    ],
)
def test_a_shape_has_a_name(flags: dict[str, Any], name: str) -> None:
    assert parallel(flags).name == name


def test_a_replica_counts_the_gpus_of_its_host_and_the_sequences_of_all_ranks() -> None:
    plan = resolved(request(profile="64k-dp", hardware="b300", model="flash"))
    assert (replica.gpus(plan), replica.sequences(plan)) == (4, 64)


def test_a_replica_of_several_hosts_is_not_run_on_one() -> None:
    replica.require_one_host(resolved(request(hardware="h200", model="w4a16")))
    plan = resolved(request(hardware="h200", model="w4a16", nnodes=2, master_addr="10.0.0.1"))
    with pytest.raises(ConfigError, match="nnodes is 2"):
        replica.require_one_host(plan)
