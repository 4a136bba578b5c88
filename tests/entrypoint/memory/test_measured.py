"""The numbers behind the count, against the starts that they come from (qualification/results/memory)."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from dsv4_serve.entrypoint.memory import overhead
from dsv4_serve.entrypoint.memory.estimate import CACHE_LAYOUTS, MemoryEstimate
from dsv4_serve.entrypoint.resolve import cuda_graphs
from tests.support.program import ROOT

H200: dict[str, Any] = json.loads((ROOT / "qualification/results/memory/h200-w4a16.json").read_text())
LINES = [json.loads(path.read_text()) for path in sorted((ROOT / "qualification/results/memory").glob("memory-*.json"))]
SIZED = [one for one in LINES if one["result"] == "sized"]
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


def number_in(lines: list[str], pattern: str) -> float:
    """The number in vLLM's line."""
    (found,) = {match[1] for line in lines if (match := re.search(pattern, line))}
    return float(found)


def counted_setting(one: dict[str, Any]) -> MemoryEstimate:
    """The count for a setting of qualification/gpu/kv_lines.toml, with the weights that were loaded."""
    setting, flags = one["setting"], iter(one["setting"]["flags"])
    values: dict[str, Any] = {}
    for word in flags:
        if word.startswith("--"):
            name = word.removeprefix("--")
            values[name] = True if name == "enforce-eager" else []
        else:
            values[name].append(float(word) if "." in word else int(word))
    values = {name: value if value is True or len(value) > 1 else value[0] for name, value in values.items()}
    if setting["draft_tokens"]:
        values["speculative-config.num_speculative_tokens"] = setting["draft_tokens"]
    sequences = values["max-num-seqs"]
    return MemoryEstimate(
        memory_gib=139.80,
        utilization=values["gpu-memory-utilization"],
        checkpoint_gib=number_in(one["lines"], r"Model loading took ([\d.]+) GiB"),
        replicated_gib=0.0,
        tensor_parallel_size=1,
        layout=CACHE_LAYOUTS["deepseek-v4-flash"],
        context=values["max-model-len"],
        batched_tokens=values["max-num-batched-tokens"],
        requests=1,
        sequences=sequences,
        draft_tokens=setting["draft_tokens"],
        draft_logits=setting.get("sampling") == "probabilistic",
        overhead=overhead.H200,
        graphs=cuda_graphs.captured(values, sequences, sm10=False),
    )


@pytest.mark.parametrize("one", SIZED, ids=lambda one: one["setting"]["name"])
def test_what_vllm_said_of_a_setting_is_counted_within_2_percent(one: dict[str, Any]) -> None:
    """One GPU's share of two, weights as loaded (qualification/gpu/kv_lines.py)."""
    memory = counted_setting(one)
    left = number_in(one["lines"], r"Available KV cache memory: ([\d.]+) GiB")
    print(f"{one['setting']['name']:<36} {memory.kv_available_gib:6.2f} counted {left:6.2f} measured")
    assert memory.kv_available_gib == pytest.approx(left, rel=0.02)
    concurrency = number_in(one["lines"], r"Maximum concurrency for .*: ([\d.]+)x")
    exact = dataclasses.replace(memory, kv_cache_memory_gib=left)
    assert exact.concurrency == pytest.approx(concurrency, abs=0.02)
