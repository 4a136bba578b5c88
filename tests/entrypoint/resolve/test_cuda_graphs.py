"""Which sizes of a step become CUDA graphs, and how many of them vLLM captures."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.plan import plain
from dsv4_serve.entrypoint.resolve import cuda_graphs, memory_inputs
from dsv4_serve.entrypoint.resolve.cuda_graphs import SIZES, narrower, sizes
from dsv4_serve.entrypoint.resolve.layers import resolve
from tests.support.plans import request, selected


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
