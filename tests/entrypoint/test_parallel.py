"""GPUs and nodes are counted as vLLM counts them."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4_serve.entrypoint.parallel import Parallel, parallel_of
from dsv4_serve.entrypoint.plan import Setting


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
