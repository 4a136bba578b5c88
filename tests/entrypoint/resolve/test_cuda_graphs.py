"""Which sizes of a step become CUDA graphs, in plans as `dsv4 explain` resolves them."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from dsv4_serve.entrypoint.plan import plain
from dsv4_serve.entrypoint.resolve import cuda_graphs, memory_inputs
from dsv4_serve.entrypoint.resolve.cuda_graphs import SIZES, narrower, sizes
from dsv4_serve.entrypoint.resolve.layers import resolve
from tests.support.plans import request, selected

from ..conftest import Run

H200 = ("explain", "--format", "json", "--hardware", "h200", "--tp", "2", "--model", "w4a16", "--profile", "524k")


@pytest.mark.parametrize(("requests", "step"), [(1, 2), (2, 2), (16, 2), (16, 4), (5, 3), (128, 2)])
def test_each_number_of_requests_that_decode_together_finds_a_size_which_is_whole_steps(
    requests: int, step: int
) -> None:
    found = sizes({step: requests}, [64, 128, 512])
    assert requests * step in found
    for running in range(1, requests + 1):
        holds = [size for size in found if size % step == 0 and running * step <= size <= requests * step]
        assert holds and holds[0] <= max(2 * running, running + 7) * step  # noqa: PT018  (vLLM's own steps)
    assert found == sorted(set(found))


def test_no_decode_step_above_the_ceiling_of_vllm_becomes_a_graph() -> None:
    assert max(sizes({2: 1024}, [64, 512])) == 512


@pytest.mark.parametrize(("requests", "step"), [(10**12, 2), (1, 10**12), (10**12, 10**12)])
def test_numbers_without_measure_make_no_more_sizes_than_the_ceiling_allows(requests: int, step: int) -> None:
    assert len(sizes({step: requests}, [64, 512])) <= 512


def test_prompts_become_graphs_where_the_hardware_names_sizes(dsv4: Run) -> None:
    flags = json.loads(dsv4(*H200).stdout)["settings"]
    found = flags[SIZES]["value"]
    assert found[:8] == [1, 2, 4, 8, 64, 80, 96, 112]
    assert found[-1] == 4096
    assert all(large <= 1.25 * small for small, large in pairwise(found[4:]))  # at most a quarter is padding
    assert flags[SIZES]["origin"] == "hardware/h200.toml prompt-graphs, and 2 requests of 2 tokens per step"


def test_no_size_is_above_the_tokens_of_a_step(dsv4: Run) -> None:
    flags = json.loads(dsv4(*H200, "--max-num-batched-tokens", "2000").stdout)["settings"]
    assert flags[SIZES]["value"][-1] == 1792


@pytest.mark.parametrize(
    "words",
    [
        ("--enforce-eager",),
        ("--max-cudagraph-capture-size", "64"),
        ("--cudagraph-capture-sizes", "2", "4"),
        ("--compilation-config", '{"cudagraph_mode": "FULL_DECODE_ONLY"}'),
    ],
)
def test_a_user_who_sets_graphs_gets_what_was_set_and_nothing_else(dsv4: Run, words: tuple[str, ...]) -> None:
    flags = json.loads(dsv4(*H200, *words).stdout)["settings"]
    named = [name for name in flags if "cudagraph" in name or name == "enforce-eager"]
    assert len(named) == 1
    assert flags[named[0]]["origin"].startswith("command line")


def test_other_hardware_is_left_to_vllm(dsv4: Run) -> None:
    found = dsv4("explain", "--format", "json", "--hardware", "b300", "--tp", "2", "--profile", "524k")
    assert SIZES not in json.loads(found.stdout)["settings"]


LOADS = ("--speculative-config.num_speculative_tokens", "3", "--max-num-seqs", "64",
         "--speculative-config.num_speculative_tokens_per_batch_size", "[[1, 4, 3], [5, 16, 1], [17, 64, 0]]")  # fmt: skip


def test_with_k_by_load_whole_steps_of_each_length_become_graphs(dsv4: Run) -> None:
    flags = json.loads(dsv4(*H200, *LOADS, "--skip", "kv-cache").stdout)["settings"]
    found = flags[SIZES]["value"]
    assert {4, 8, 16} <= set(found)  # 1, 2, 4 requests of 4 tokens
    assert {2, 16, 32} <= set(found)  # 1, 8, 16 of 2
    assert {1, 24, 40, 48, 56, 64} <= set(found)  # up to 64 of 1
    assert flags[SIZES]["origin"].endswith(
        "4 requests of 4 tokens, 16 requests of 2 tokens, 64 requests of 1 token per step"
    )


def test_the_graphs_of_shorter_steps_are_counted_as_vllm_makes_them() -> None:
    values = {
        "speculative-config.num_speculative_tokens": 3,
        "speculative-config.num_speculative_tokens_per_batch_size": [[1, 2, 3], [3, 4, 1]],
        "max-num-seqs": 4,
    }
    # steps of 2 tokens: 1 and 2 are rounded to 2, 3 to 4, 8 is 8; 16 tokens would be 8 requests
    assert narrower([1, 2, 3, 8, 16], values, 4) == [2, 4, 8]
    assert narrower([1, 2, 3, 8, 16], {"speculative-config.num_speculative_tokens": 3}, 4) == []


def test_the_graphs_of_every_k_take_memory() -> None:
    flags = {
        "speculative-config.num_speculative_tokens": 3,
        "speculative-config.num_speculative_tokens_per_batch_size": [[1, 4, 3], [5, 16, 1]],
    }
    wanted = request(hardware="h200", model="flash", profile="64k", max_num_seqs=16, **flags)
    selection = selected(wanted)
    plan = resolve(selection, wanted)
    memory = memory_inputs.estimate(selection, plan.flags)
    assert memory is not None
    assert memory.graphs == (*plan.value(SIZES), *narrower(plan.value(SIZES), plain(plan.flags), 16))
    assert len(memory.graphs) > len(plan.value(SIZES))


ONE_DRAFT = {"speculative-config.method": "mtp", "speculative-config.num_speculative_tokens": 1}


@pytest.mark.parametrize(
    ("requests", "batched", "sm10", "many", "longest"),
    [(16, 8192, False, 11, 64), (256, 8192, False, 51, 512), (256, 8192, True, 83, 1024), (256, 128, False, 19, 128)],
)
def test_what_vllm_captures_by_itself_is_known(
    requests: int, batched: int, sm10: bool, many: int, longest: int
) -> None:
    """11 sizes to 64 tokens and 51 to 512 were captured on H200 (vLLM 0.32.0, 2026-11-22); the others are read there."""
    captured = cuda_graphs.captured(ONE_DRAFT | {"max-num-batched-tokens": batched}, requests, sm10=sm10)
    assert (len(captured), captured[-1]) == (many, longest)


@pytest.mark.parametrize(
    "off",
    [{"enforce-eager": True}, {"compilation-config.cudagraph_mode": "NONE"}, {"optimization-level": 0}, {"O": 0}],
    ids=str,
)
def test_no_graph_is_captured_where_the_plan_turns_them_off(off: dict[str, object]) -> None:
    assert cuda_graphs.captured(ONE_DRAFT | off, 16, sm10=False) == ()


def test_sizes_that_a_plan_sets_are_those_that_vllm_captures() -> None:
    chosen = {"cudagraph-capture-sizes": [2, 4, 4096], "max-num-batched-tokens": 2048}
    assert cuda_graphs.captured(ONE_DRAFT | chosen, 2, sm10=False) == (2, 4)
    assert cuda_graphs.captured(ONE_DRAFT | {"max-cudagraph-capture-size": 8}, 2, sm10=False) == (1, 2, 4, 8)
