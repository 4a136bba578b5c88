"""The numbers behind the count, against the starts that they come from (qualification/results/memory)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dsv4_serve.entrypoint.memory import overhead
from dsv4_serve.entrypoint.memory.estimate import CACHE_LAYOUTS, MemoryEstimate
from tests.support.program import ROOT

H200: dict[str, Any] = json.loads((ROOT / "qualification/results/memory/h200-w4a16.json").read_text())
OF_GRAPHS = [one for one in [*H200["starts"], *H200["graphs_alone"]] if "graphs_gib" in one]


def counted(start: dict[str, Any]) -> MemoryEstimate:
    """The count for a start; a share was loaded as the whole weights of one GPU."""
    return MemoryEstimate(
        memory_gib=139.80,
        utilization=start["utilization"],
        checkpoint_gib=start["loaded_gib"],
        replicated_gib=0.0,
        tensor_parallel_size=1,
        layout=CACHE_LAYOUTS["deepseek-v4-flash"],
        context=start["context"],
        batched_tokens=start["batched_tokens"],
        requests=1,
        sequences=start["sequences"],
        overhead=overhead.H200,
        graphs=tuple(H200["graphs"][start["graphs"]]),
    )


@pytest.mark.parametrize("start", H200["starts"], ids=lambda start: start["name"])
def test_what_h200_left_for_the_kv_cache_is_counted_within_2_percent(start: dict[str, Any]) -> None:
    memory = counted(start)
    print(f"{start['name']:<20} {memory.kv_available_gib:6.2f} counted {start['kv_gib']:6.2f} measured")
    assert memory.kv_available_gib == pytest.approx(start["kv_gib"], rel=0.02)
    assert abs(memory.kv_available_gib - start["kv_gib"]) <= memory.uncertainty_gib


@pytest.mark.parametrize("start", OF_GRAPHS, ids=lambda start: f"{start['graphs']}-{start['graphs_gib']}")
def test_what_h200_reserved_for_cuda_graphs_is_counted_within_a_tenth(start: dict[str, Any]) -> None:
    sizes = H200["graphs"][start["graphs"]]
    assert overhead.graphs_gib(overhead.H200, sizes) == pytest.approx(start["graphs_gib"], rel=0.1)
