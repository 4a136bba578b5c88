"""Which sizes of prompts become CUDA graphs, in plans as `dsv4 explain` resolves them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.memory.estimate import MemoryEstimate
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.resolve import memory_inputs
from dsv4_serve.entrypoint.resolve.cuda_graphs import SIZES
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.prompt_graphs import CHOICE
from dsv4_serve.entrypoint.resolve.select import Selection
from tests.support.plans import CATALOG, request, selected

from ..conftest import Run

H200 = ("explain", "--format", "json", "--hardware", "h200", "--tp", "2", "--model", "w4a16", "--profile", "524k")
RTX = ("explain", "--format", "json", "--hardware", "rtx-pro-6000")
MEMORY = ("weights", "kv-cache")
PROMPTS = CATALOG.hardware("rtx-pro-6000", "").get("prompt_graphs")
UNMEASURED = [
    name
    for name in CATALOG.names("hardware")
    if (hardware := CATALOG.hardware(name, "")).get("prompt_graphs") and not hardware.get("prompt_graphs_measured")
]


def planned(catalog: Catalog = CATALOG, **requested: Any) -> tuple[Selection, Plan]:
    wanted = request(**requested)
    selection = selected(wanted, catalog)
    return selection, resolve(selection, wanted)


def memory_of(selection: Selection, flags: Mapping[str, Setting]) -> MemoryEstimate:
    found = memory_inputs.estimate(selection, flags)
    assert found
    return found


def without(flags: Mapping[str, Setting]) -> dict[str, Setting]:
    return {name: setting for name, setting in flags.items() if name != SIZES}


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


@pytest.mark.parametrize("plan", [H200, (*RTX, "--tp", "4")], ids=["measured", "as far as memory is left"])
@pytest.mark.parametrize(
    "words",
    [
        ("--enforce-eager",),
        ("--max-cudagraph-capture-size", "64"),
        ("--cudagraph-capture-sizes", "2", "4"),
        ("--compilation-config", '{"cudagraph_mode": "FULL_DECODE_ONLY"}'),
    ],
)
def test_a_user_who_sets_graphs_gets_what_was_set_and_nothing_else(
    dsv4: Run, plan: tuple[str, ...], words: tuple[str, ...]
) -> None:
    flags = json.loads(dsv4(*plan, *words).stdout)["settings"]
    named = [name for name in flags if "cudagraph" in name or name in ("enforce-eager", CHOICE)]
    assert len(named) == 1
    assert flags[named[0]]["origin"].startswith("command line")


def test_nothing_is_added_where_vllm_is_told_to_capture_nothing() -> None:
    _, plan = planned(hardware="b300", profile="64k", optimization_level=0)
    assert SIZES not in plan.flags
    assert CHOICE not in plan.choices


@pytest.mark.parametrize("hardware", ["gb10", "cpu"])
def test_other_hardware_is_left_to_vllm(hardware: str) -> None:
    assert not CATALOG.hardware(hardware, "").get("prompt_graphs")


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


def test_all_sizes_are_taken_where_memory_is_left_for_them(dsv4: Run) -> None:
    flags = json.loads(dsv4(*RTX, "--tp", "4", "--profile", "128k").stdout)["settings"]
    assert set(PROMPTS) <= set(flags[SIZES]["value"])
    origin = "architectures/sm-12.0.toml prompt-graphs, and 8 requests of 6 tokens per step"
    assert flags[SIZES]["origin"] == origin


def test_the_longest_are_left_out_until_the_promised_requests_fit(dsv4: Run) -> None:
    flags = json.loads(dsv4(*RTX, "--tp", "2", "--profile", "128k").stdout)["settings"]
    taken = [size for size in flags[SIZES]["value"] if size in PROMPTS]
    assert 0 < len(taken) < len(PROMPTS)
    assert taken == PROMPTS[: len(taken)]
    assert (
        f"to {taken[-1]} tokens (no memory for {PROMPTS[len(taken)]} to 2,048 tokens beside the 8 requests of full"
        " length that the plan promises)"
    ) in flags[SIZES]["origin"]


def test_a_plan_that_holds_less_than_it_promises_has_none_and_explain_says_why(dsv4: Run) -> None:
    answer = json.loads(dsv4(*RTX, "--tp", "2", "--profile", "throughput").stdout)["settings"]
    assert SIZES not in answer
    assert "without them too, there is no memory for the 16 requests of full length" in answer[CHOICE]["origin"]


@pytest.mark.parametrize(
    "changed",
    [{"max_num_seqs": 200}, {"gpu_memory_utilization": 0.9}, {"tensor_parallel_size": 2}],
    ids=lambda changed: next(iter(changed)),
)
def test_flags_of_the_user_decide_what_is_left(changed: dict[str, Any]) -> None:
    own = {"hardware": "rtx-pro-6000", "profile": "64k", "tensor_parallel_size": 4, "model": "flash-0731-nvfp4"}
    if "gpu_memory_utilization" in changed:
        own["tensor_parallel_size"] = 2
    before, after = (
        sum(memory_of(selection, plan.flags).graphs)
        for selection, plan in (planned(**own, skip=MEMORY), planned(**{**own, **changed}, skip=MEMORY))
    )
    assert after < before


def rows() -> Iterator[tuple[str, int, str, str]]:
    """Hardware, size, profile and longest graph of each combination in the table of the page."""
    page = (Path(__file__).parents[3] / "docs/explanation/memory.md").read_text(encoding="utf-8")
    table = page.partition("### Graphs for prompts")[2].partition("\n## ")[0]
    for line in table.splitlines():
        cells = [cell.strip().split(", ") for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[1][0].isdigit():
            for hardware, size, profile in itertools.product(*cells[:3]):
                yield hardware, int(size), profile, cells[3][0]


def test_the_page_has_the_longest_graph_of_each_plan() -> None:
    said = list(rows())
    assert len(said) > 200
    for hardware, size, profile, longest in said:
        _, plan = planned(hardware=hardware, tensor_parallel_size=size, profile=profile)
        found = f"{plan.value(SIZES)[-1]:,}" if SIZES in plan.flags else "none"
        assert (hardware, size, profile, found) == (hardware, size, profile, longest)


def test_more_tokens_of_a_step_bring_longer_graphs() -> None:
    own = {"hardware": "rtx-pro-6000", "profile": "64k", "tensor_parallel_size": 4}
    for batched, longest in ((1000, 896), (3000, 2560), (16_384, 4096)):
        _, plan = planned(**own, max_num_batched_tokens=batched)
        assert plan.value(SIZES)[-1] == longest


TWO = {"hardware": "rtx-pro-6000", "profile": "64k", "tensor_parallel_size": 2, "model": "flash-0731-nvfp4"}


def left_by_vllms_own(**requested: Any) -> float:
    selection, plan = planned(**requested)
    return memory_of(selection, without(plan.flags)).kv_available_gib


def test_a_kv_cache_of_the_users_own_size_keeps_its_room() -> None:
    """vLLM gives the cache so much whatever graphs take, and would run out of memory while it captures them."""
    left = left_by_vllms_own(**TWO)
    _, less = planned(**TWO, kv_cache_memory_bytes=int((left - 0.2) * 2**30))
    _, none = planned(**TWO, kv_cache_memory_bytes=int((left - 0.02) * 2**30))
    assert less.value(SIZES)[-1] == 160
    assert SIZES not in none.flags
    assert "no memory for 64 to 2,048 tokens" in none.choices[CHOICE].origin


def test_vllm_captures_its_own_sizes_where_those_that_fit_reach_no_further(folder: Callable[..., Path]) -> None:
    """For 16 requests of 6 tokens it captures 29 sizes to 192 tokens; of a dense list fewer tokens fit."""
    dense = f'about = "mine"\nextends = "rtx-pro-6000"\nprompt-graphs = {list(range(64, 300))}\n'
    catalog = Catalog([folder({"hardware/mine.toml": dense})])
    own = {"hardware": "rtx-pro-6000", "profile": "throughput", "tensor_parallel_size": 4}
    room = int(left_by_vllms_own(**own) * 2**30)
    _, plan = planned(catalog, **own | {"hardware": "mine"}, kv_cache_memory_bytes=room)
    assert SIZES not in plan.flags
    assert plan.choices[CHOICE].origin.endswith("and vLLM's own sizes reach 192")


OWN = 'about = "mine"\ncompute-capability = "12.0"\n'


def test_where_memory_is_not_counted_none_are_taken(folder: Callable[..., Path]) -> None:
    catalog = Catalog([folder({"hardware/mine.toml": OWN})])
    _, plan = planned(catalog, hardware="mine", profile="64k")
    assert SIZES not in plan.flags
    assert "what they leave for requests is not counted: the GPU's memory is not known" in plan.choices[CHOICE].origin


def test_where_they_were_measured_all_are_taken(folder: Callable[..., Path]) -> None:
    own = OWN + "prompt-graphs = [64, 1024]\nprompt-graphs-measured = true\n"
    catalog = Catalog([folder({"hardware/mine.toml": own})])
    _, plan = planned(catalog, hardware="mine", profile="64k")
    assert plan.value(SIZES)[-1] == 1024
    assert "hardware/mine.toml prompt-graphs, and 4 requests of" in plan.flags[SIZES].origin


@st.composite
def requested(draw: st.DrawFn) -> dict[str, Any]:
    """A request for unmeasured hardware, with flags that take memory."""
    asked: dict[str, Any] = {
        "hardware": draw(st.sampled_from(UNMEASURED)),
        "profile": draw(st.sampled_from(["64k", "128k", "256k", "524k", "524k-3", "640k", "1m", "throughput"])),
        "tensor_parallel_size": draw(st.sampled_from([1, 2, 4, 8])),
    }
    optional: dict[str, st.SearchStrategy[Any]] = {
        "model": st.sampled_from(["acti", "flash", "w4a16", "nvfp4", "flash-0731", "flash-0731-nvfp4", "pro"]),
        "max_num_seqs": st.integers(1, 600),
        "max_num_batched_tokens": st.integers(16, 20_000),
        "max_model_len": st.integers(4096, 1_048_576),
        "gpu_memory_utilization": st.floats(0.7, 0.97),
        "kv_cache_memory_bytes": st.integers(2**28, 2**37),
        "speculative-config.num_speculative_tokens": st.integers(1, 5),
        "data_parallel_size": st.just(2),
        "enable_expert_parallel": st.just(True),
        "async_scheduling": st.booleans(),
        "speculative-config.num_speculative_tokens_per_batch_size": st.just([[1, 4, 2], [5, 600, 1]]),
    }
    for name in draw(st.sets(st.sampled_from(sorted(optional)), max_size=5)):
        asked[name] = draw(optional[name])
    return asked


@settings(max_examples=100, deadline=None)
@given(requested())
def test_whatever_the_flags_graphs_for_prompts_cost_no_promised_request(asked: dict[str, Any]) -> None:
    try:
        selection, plan = planned(**asked, skip=(*MEMORY, "profile-model", "profile-hardware", "k-by-load"))
    except ConfigError:
        assume(False)  # a combination that is refused for another reason
    before, after = memory_of(selection, without(plan.flags)), memory_of(selection, plan.flags)
    if SIZES not in plan.flags:
        assert after == before
        return
    sizes, batched = plan.value(SIZES), plan.value("max-num-batched-tokens")
    assert max(sizes) <= batched
    assert before.steady_state_requests >= before.requests
    assert after.steady_state_requests >= after.requests
    assert after.at_worst.admits >= before.at_worst.admits
    longer = next((size for size in PROMPTS if max(sizes) < size <= batched), 0)
    if longer > 512 and "kv_cache_memory_bytes" not in asked:  # up to 512 a decode step may be the longest
        more = memory_of(selection, {**plan.flags, SIZES: Setting([*sizes, longer], "test")})
        assert more.steady_state_requests < more.requests or more.at_worst.admits < before.at_worst.admits
