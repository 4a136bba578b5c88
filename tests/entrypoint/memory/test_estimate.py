"""The memory arithmetic against figures from logs, and what is answered and advised."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.memory import advice as fit_answer
from dsv4_serve.entrypoint.memory import checks, estimate
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve import memory_inputs
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select

FLASH = estimate.CACHE_LAYOUTS["deepseek-v4-flash"]
W4A16 = estimate.MemoryEstimate(
    memory_gib=95.01,
    utilization=0.95,
    checkpoint_gib=155.2,
    replicated_gib=2.4,
    tensor_parallel_size=2,
    layout=FLASH,
    context=524_288,
    batched_tokens=2048,
    requests=2,
    gathers=False,
    tensor_parallel_sizes=(1, 2, 4, 8),
)
FULL = dataclasses.replace(W4A16, context=1_048_576, batched_tokens=8192)


def plan(profile, model, hardware, *, skip=(), **flags):
    request = Request(
        {
            "profile": Setting(profile, "test"),
            "model": Setting(model, "test"),
            "hardware": Setting(hardware, "test"),
        },
        skip=skip,
        command_line=Layer({n if "." in n else n.replace("_", "-"): Setting(v, "test") for n, v in flags.items()}),
    )
    selection = select(Catalog([]), request, lambda: pytest.fail("the hardware was named"))
    return selection, resolve(selection, request)


@pytest.mark.parametrize(
    ("total", "size", "logged"),
    [
        (142.00, 2, 72.93),  # W4A16 without its draft head, 2 x H200 (its card, 2026-05)
        (160.2, 4, 42.9),  # NVFP4, 4 x RTX PRO 6000 (its card, 2026-05: 43)
    ],
)
def test_weights_a_gpu_are_those_of_the_logs(total: float, size: int, logged: float) -> None:
    assert estimate.weights_gib(total, 3.86, size) == pytest.approx(logged, rel=0.01)


def test_buffers_for_the_context_are_those_of_the_source() -> None:
    """1,320 bytes a token up to 256k and 528 above; FlashMLA gathers four prompts of compressed keys at 1,024 bytes."""
    on_sm120 = dataclasses.replace(W4A16, context=262_144)
    assert on_sm120.workspace_gib == pytest.approx(262_144 * 1320 / estimate.GIB)
    assert FULL.workspace_gib == pytest.approx(1_048_576 * 528 / estimate.GIB)
    assert dataclasses.replace(FULL, gathers=True).workspace_gib == pytest.approx(1.0, rel=0.05)


def test_more_of_anything_never_leaves_more_room() -> None:
    for change in ({"context": 1_048_576}, {"batched_tokens": 4096}, {"checkpoint_gib": 160.0}, {"utilization": 0.9}):
        more = dataclasses.replace(W4A16, **change)
        assert more.concurrency < W4A16.concurrency
        assert more.steady_state_requests <= W4A16.steady_state_requests


def test_steady_state_counts_one_prefill_and_the_rest_decoding() -> None:
    one, settled = W4A16.blocks_per_request, 2048 + 4 + 18 + 2 * 4  # 524,288 / 256, and windows with 4 tokens in flight
    enough = (1 + one + settled) * FLASH.block_bytes / estimate.GIB + 1e-9
    exact = dataclasses.replace(W4A16, kv_cache_memory_gib=enough)
    assert exact.steady_state_requests == 2
    assert dataclasses.replace(exact, kv_cache_memory_gib=enough - 0.001).steady_state_requests == 1
    assert exact.concurrency < 2


@pytest.mark.parametrize("change", [{}, {"batched_tokens": 16_384}, {"checkpoint_gib": 161.0}, {"requests": 8}])
def test_each_advice_alone_is_enough_and_the_next_larger_value_is_not(change) -> None:
    short = dataclasses.replace(FULL, **change)
    answer = fit_answer.fit(short)
    required = short.requests if short.admits else 1
    names = {
        "max-num-batched-tokens": "batched_tokens",
        "max-model-len": "context",
        "gpu-memory-utilization": "utilization",
        "tensor-parallel-size": "tensor_parallel_size",
    }
    assert answer.advice
    for advice in answer.advice:
        if advice.flag == "max-num-seqs":
            assert advice.value == short.steady_state_requests
            continue
        changed = dataclasses.replace(short, **{names[advice.flag]: advice.value})
        assert changed.steady_state_requests >= required, advice
        if advice.flag == "max-model-len":
            longer = dataclasses.replace(changed, context=changed.context + 256)
            assert longer.steady_state_requests < required


def test_batched_tokens_are_advised_first_then_context() -> None:
    flags = [advice.flag for advice in fit_answer.fit(FULL).advice]
    assert flags[:2] == ["max-num-batched-tokens", "max-model-len"]


def test_a_plan_with_room_gets_no_advice() -> None:
    assert fit_answer.fit(W4A16).advice == ()


def test_the_json_has_exactly_the_promised_keys() -> None:
    answer = json.loads(json.dumps(fit_answer.fit(FULL).to_json()))
    assert list(answer) == [
        "weights_gib", "overhead_gib", "kv_available_gib", "uncertainty_gib", "blocks", "blocks_per_request",
        "concurrency", "steady_state_requests", "promised", "fits", "certain", "not_counted", "advice",
    ]  # fmt: skip
    assert answer["fits"] is False
    assert answer["advice"][0]["flag"] == "max-num-batched-tokens"


def test_the_text_tells_both_ways_to_count() -> None:
    text = fit_answer.text(W4A16, fit_answer.fit(W4A16))
    assert re.search(r"maximum concurrency of \d\.\d\dx", text)
    assert "can run at once (one in prefill); the plan promises 2" in text


def test_the_text_names_flags_as_they_are_typed() -> None:
    assert "  --max-num-batched-tokens 4096 " in fit_answer.text(FULL, fit_answer.fit(FULL))


def test_the_documented_answer_is_what_is_answered() -> None:
    skip = ("weights", "kv-cache")
    selection, resolved = plan("1m", "w4a16", "rtx-pro-6000", skip=skip, max_num_batched_tokens=16_384)
    memory = memory_inputs.estimate(selection, resolved.flags)
    assert memory is not None
    documented = (Path(__file__).parents[3] / "docs/explanation/memory.md").read_text(encoding="utf-8")
    assert fit_answer.text(memory, fit_answer.fit(memory)) in documented


def test_a_named_hardware_is_answered_without_a_gpu() -> None:
    selection, resolved = plan("524k", "w4a16", "rtx-pro-6000")
    memory = memory_inputs.estimate(selection, resolved.flags)
    assert memory is not None
    assert memory.sized
    assert (memory.context, memory.batched_tokens, memory.requests) == (524_288, 2048, 2)
    assert not memory.gathers
    assert fit_answer.fit(memory).fits


def test_synchronous_scheduling_halves_what_is_in_flight() -> None:
    selection, resolved = plan("524k", "w4a16", "h200", async_scheduling=False)
    memory = memory_inputs.estimate(selection, resolved.flags)
    assert memory is not None
    assert memory.in_flight == memory.batched_tokens == 8192


def test_a_given_cache_size_is_taken_as_it_is() -> None:
    selection, resolved = plan("524k", "w4a16", "h200", kv_cache_memory_bytes=12 << 30)
    memory = memory_inputs.estimate(selection, resolved.flags)
    assert memory is not None
    assert memory.kv_available_gib == 12.0


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_context_parallelism_is_not_counted_and_says_so(kind: str) -> None:
    flag = {f"{kind}_context_parallel_size": 2}
    selection, resolved = plan("524k", "w4a16", "h200", skip=("context-parallel",), **flag)
    assert memory_inputs.estimate(selection, resolved.flags) is None
    assert "divide sliding windows" in memory_inputs.unsized(selection, resolved.flags)


def test_hardware_without_a_size_is_not_judged() -> None:
    selection, resolved = plan("demo-v4", "demo-v4=/models/demo", "cpu")
    assert memory_inputs.estimate(selection, resolved.flags) is None


def test_a_request_that_cannot_fit_is_refused_with_the_value_that_can() -> None:
    with pytest.raises(ConfigError, match=r"lower max-num-batched-tokens to \d+, or .*use --skip kv-cache"):
        plan("1m", "w4a16", "rtx-pro-6000", max_num_batched_tokens=16_384)


def test_weights_that_cannot_fit_are_refused_once() -> None:
    with pytest.raises(ConfigError, match=r"the weights take \d+\.\d GiB per GPU .*use --skip weights"):
        plan("524k", "w4a16", "rtx-pro-6000", gpu_memory_utilization=0.8)
    heavy = dataclasses.replace(W4A16, utilization=0.8)
    assert [name for name, _ in checks.problems(heavy)] == ["weights"]


def test_a_promise_beyond_the_cache_is_reported_and_does_not_stop_a_start() -> None:
    many = dataclasses.replace(W4A16, requests=16)
    ((name, problem),) = checks.problems(many)
    assert (name, problem.fatal) == ("full-requests", False)
    assert f"{many.steady_state_requests} requests of 524288 tokens" in problem.seen


def test_a_skipped_check_is_silent() -> None:
    assert not list(checks.problems(FULL, skip=["kv-cache"]))


def test_every_advised_context_is_a_whole_number_of_blocks() -> None:
    (context,) = [a.value for a in fit_answer.fit(FULL).advice if a.flag == "max-model-len"]
    assert context % estimate.BLOCK_TOKENS == 0
    assert context < FULL.context


def test_801k_tokens_start_on_two_rtx_pro_6000() -> None:
    selection, found = plan("1m", "flash-0731-nvfp4", "rtx-pro-6000", max_model_len=801_000)
    memory = memory_inputs.estimate(selection, found.flags)
    assert memory
    assert memory.admits


@pytest.mark.parametrize(("model", "gib"), [("flash", 3.4), ("flash-0731", 10.1), ("w4a16", 12.3)])
def test_a_drafter_takes_memory_only_where_it_drafts(model: str, gib: float) -> None:
    drafting, without = (
        memory_inputs.estimate(selection, found.flags)
        for n in (1, 0)
        for selection, found in [plan("64k", model, "h200", **{"speculative-config.num_speculative_tokens": n})]
    )
    assert drafting
    assert without
    assert drafting.checkpoint_gib - without.checkpoint_gib == pytest.approx(gib)


def test_a_request_that_barely_fits_is_answered_with_what_makes_it_certain() -> None:
    selection, found = plan("1m", "flash-0731-nvfp4", "rtx-pro-6000")
    tight = memory_inputs.estimate(selection, found.flags)
    assert tight
    answer = fit_answer.fit(tight)
    assert answer.fits
    assert not answer.certain
    assert {"max-model-len", "tensor-parallel-size"} <= {advice.flag for advice in answer.advice}
    (context,) = [advice.value for advice in answer.advice if advice.flag == "max-model-len"]
    assert dataclasses.replace(tight, context=int(context)).at_worst.admits
    assert not dataclasses.replace(tight, context=int(context) + 256).at_worst.admits


def test_no_context_is_advised_that_the_model_does_not_have() -> None:
    skip = ("max-model-len", "kv-cache")
    selection, found = plan("524k", "flash-0731-nvfp4", "rtx-pro-6000", skip=skip, max_model_len=5_000_000)
    memory = memory_inputs.estimate(selection, found.flags)
    assert memory
    assert [advice.value for advice in fit_answer.fit(memory).advice if advice.flag == "max-model-len"] == [1_048_576]
