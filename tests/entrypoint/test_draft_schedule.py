"""k by load, compared with vLLM's own code."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint import draft_schedule

SCHEDULE = draft_schedule.SCHEDULE
TOKENS = "speculative-config.num_speculative_tokens"


@pytest.fixture(scope="module")
def of_vllm() -> ModuleType:
    """vLLM's module alone: importing it by name imports all of vLLM."""
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("no vLLM here")
    path = Path(found.origin).parent / "v1/spec_decode/dynamic/utils.py"
    spec = importlib.util.spec_from_file_location("dynamic_utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RANGES = st.lists(st.tuples(st.integers(-1, 12), st.integers(-1, 14), st.integers(-1, 6)).map(list), max_size=4)
VALID = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 6)), min_size=1, max_size=4)


def built(parts: list[tuple[int, int, int]]) -> list[list[int]]:
    """Ranges in order, each after a gap but for the first."""
    end, ranges = 0, []
    for gap, length, tokens in parts:
        first = end + 1 + (gap if ranges else 0)
        end = first + length - 1
        ranges.append([first, end, tokens])
    return ranges


@given(RANGES)
def test_a_schedule_is_refused_exactly_where_vllm_refuses_it(of_vllm: ModuleType, ranges: list[list[int]]) -> None:
    try:
        of_vllm.validate_and_normalize_dynamic_sd_schedule(ranges)
    except ValueError:
        assert draft_schedule.problem(ranges)
    else:
        assert draft_schedule.problem(ranges) == ""


@given(VALID, st.integers(1, 30), st.integers(1, 7), st.randoms(use_true_random=False))
def test_each_number_of_requests_gets_the_draft_tokens_that_vllm_gives_it(
    of_vllm: ModuleType, parts: list[tuple[int, int, int]], requests: int, most: int, chance: Any
) -> None:
    schedule = built(parts)
    chance.shuffle(schedule)  # vLLM sorts the ranges
    dense = of_vllm.build_dynamic_sd_schedule_lookup(schedule, requests, most)[1:]
    found = draft_schedule.loads(schedule, requests, most)
    assert [load.draft_tokens for load in found for _ in range(load.first, load.last + 1)] == dense
    assert draft_schedule.alone({SCHEDULE: schedule, TOKENS: most, "max-num-seqs": requests}) == dense[0]
    widest = {tokens: count for count, tokens in enumerate(dense, 1)}
    assert draft_schedule.tiers({SCHEDULE: schedule, TOKENS: most, "max-num-seqs": requests}, 1) == widest


@pytest.mark.parametrize("value", [None, {}, "3", [], [[1, 2]], [[1, 2, 3, 4]], [[1, 2, 1.5]], [[1, 2, True]], [1]])
def test_what_is_no_list_of_ranges_is_refused(value: object) -> None:
    assert "[[first, last, draft tokens], ...]" in draft_schedule.problem(value)


@pytest.mark.parametrize(
    ("schedule", "most", "requests", "says"),
    [
        ([[1, 4, 5], [5, 16, 3], [17, 64, 0]], 5, 64, "5 for 1 to 4 requests, 3 for 5 to 16, none for 17 to 64"),
        ([[1, 4, 5], [5, 16, 3], [17, 64, 0]], 1, 64, "1 for 1 to 16 requests, none for 17 to 64"),
        ([[1, 4, 5], [5, 16, 3]], 5, 4, "5 for 1 to 4 requests"),
        ([[1, 1, 3], [2, 2, 0]], 3, 10**12, "3 for 1 request, none for 2 to 1000000000000"),
    ],
)
def test_a_schedule_is_told_as_far_as_it_applies(
    schedule: list[list[int]], most: int, requests: int, says: str
) -> None:
    assert draft_schedule.text(draft_schedule.loads(schedule, requests, most)) == says


@pytest.mark.parametrize(
    "values", [{}, {TOKENS: 3}, {TOKENS: 0, SCHEDULE: [[1, 4, 2]]}, {TOKENS: 3, SCHEDULE: [[2, 4, 2]]}]
)
def test_without_a_schedule_that_applies_the_number_is_the_same_at_any_load(values: dict[str, Any]) -> None:
    assert draft_schedule.of_plan(values) == []
    assert draft_schedule.alone(values) == values.get(TOKENS, 0)
    assert draft_schedule.tiers(values, 8) == {values.get(TOKENS, 0): 8}


def test_the_range_of_one_request_decides_what_the_gate_measures() -> None:
    make: Callable[[int], dict[str, Any]] = lambda tokens: {TOKENS: 5, SCHEDULE: [[1, 1, tokens], [2, 8, 1]]}  # noqa: E731
    assert [draft_schedule.alone(make(tokens)) for tokens in (0, 2, 9)] == [0, 2, 5]
