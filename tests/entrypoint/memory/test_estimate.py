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
    said = fit_answer.text(W4A16, fit_answer.fit(W4A16))
    assert re.search(r"maximum concurrency of \d\.\d\dx", said)
    assert "can run at once (one in prefill); the plan promises 2" in said


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
    selection, resolved = plan("524k", "w4a16", "h200", skip=("decode-context-parallel",), **flag)
    assert memory_inputs.estimate(selection, resolved.flags) is None
    assert f"{kind} context parallelism" in memory_inputs.unsized(selection, resolved.flags)


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


def memory_of(profile: str, model: str, hardware: str, **flags) -> estimate.MemoryEstimate:
    skip = ("weights", "kv-cache", "tensor-parallel-size", "profile-model", "profile-hardware")
    selection, resolved = plan(profile, model, hardware, skip=skip, **flags)
    found = memory_inputs.estimate(selection, resolved.flags)
    assert found
    return found


def test_a_changed_number_of_sequences_is_what_the_plan_promises() -> None:
    assert memory_of("1m", "acti", "rtx-pro-6000").requests == 1
    assert memory_of("1m", "acti", "rtx-pro-6000", max_num_seqs=8).requests == 8


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"max_num_seqs": 512}, {"max_num_seqs": 4}),
        ({}, {"enforce_eager": True}),
        (
            {"max_cudagraph_capture_size": 512, "max_num_seqs": 256},
            {"max_cudagraph_capture_size": 8, "max_num_seqs": 256},
        ),
        ({"max_num_batched_tokens": 16_384}, {"max_num_batched_tokens": 1024}),
        ({"gpu_memory_utilization": 0.85}, {"gpu_memory_utilization": 0.9}),
        (
            {"speculative-config.draft_sample_method": "probabilistic", "max_num_seqs": 256},
            {"speculative-config.draft_sample_method": "greedy", "max_num_seqs": 256},
        ),
    ],
)
@pytest.mark.parametrize("hardware", ["rtx-pro-6000", "b300", "gb10", "h200", "h20"])
def test_every_setting_counts_on_every_hardware(
    hardware: str, less: dict[str, object], more: dict[str, object]
) -> None:
    few, many = (memory_of("64k", "flash-0731", hardware, **flags) for flags in (less, more))
    assert few.kv_available_gib < many.kv_available_gib


def test_the_mxfp4_indexer_makes_blocks_smaller() -> None:
    """A key takes 68 of 132 bytes, a page of 64 of them 4,608 (models/deepseek_v4/attention.py, vLLM 0.32.0)."""
    small = memory_of("64k", "flash", "b200", **{"attention-config.indexer_kv_dtype": "mxfp4"})
    assert small.layout_here.block_bytes == 21 * (37_440 + 4608) + 20 * 1728


@pytest.mark.parametrize(("dtype", "entry"), [("fp8", 512), ("bfloat16", 1024)])
def test_flashinfer_keeps_plain_rows_on_sm_10(dtype: str, entry: int) -> None:
    found = memory_of("64k", "flash", "b200", attention_backend="FLASHINFER_MLA_SPARSE_DSV4", kv_cache_dtype=dtype)
    assert found.layout_here.entry == entry
    assert not found.gathers


def test_data_parallel_replicas_share_experts_and_nothing_else() -> None:
    """0731 at TP=1: 155.4 GiB, of which 146.7 are experts of target model and drafter."""
    one, eight = (memory_of("64k", "flash-0731", "b200", tensor_parallel_size=1, data_parallel_size=n) for n in (1, 8))
    assert one.weights_gib == pytest.approx(155.4)
    assert eight.weights_gib == pytest.approx(155.4 - one.experts_gib * 7 / 8)
    assert one.experts_gib == pytest.approx(146.7, abs=0.1)


def test_pipeline_stages_divide_layers_and_add_steps_in_flight() -> None:
    """vLLM 0.32.0 has a step for each stage in flight, and one more with asynchronous scheduling (config/vllm.py)."""
    one, two = (memory_of("64k", "w4a16", "h200", tensor_parallel_size=2, pipeline_parallel_size=n) for n in (1, 2))
    drafter = 12.3 / 2
    assert two.weights_gib == pytest.approx((one.weights_gib - drafter) / 2 + drafter)
    assert (one.in_flight, two.in_flight) == (2 * 8192, 3 * 8192)
    assert two.layout_here.block_bytes < one.layout_here.block_bytes


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"enable_lora": True}, "LoRA"),
        ({"kv-transfer-config.kv_connector": "OffloadingConnector"}, "KV connector"),
        ({"enable_eplb": True}, "EPLB"),
    ],
)
def test_what_is_not_counted_is_said(flags: dict[str, object], said: str) -> None:
    found = memory_of("64k", "flash", "h200", **flags)
    assert any(said in what for what in found.not_counted)
    assert said in fit_answer.text(found, fit_answer.fit(found))


def test_images_are_not_counted_and_said_to_be_left_out() -> None:
    assert "images" in " ".join(memory_of("64k", "flash-vision", "h200").not_counted)
    assert not memory_of("64k", "flash-vision", "h200", language_model_only=True).not_counted


def test_a_plan_is_refused_only_beyond_the_uncertainty_and_warned_of_within_it() -> None:
    needed = W4A16.request_gib
    base = dataclasses.replace(W4A16, requests=1)
    spread = base.uncertainty_gib
    assert spread > 0

    def at(kv: float) -> estimate.MemoryEstimate:
        return dataclasses.replace(base, memory_gib=base.memory_gib + (kv - base.kv_available_gib) / base.utilization)

    def found(kv: float) -> list[tuple[str, bool]]:
        return [(name, problem.fatal) for name, problem in checks.problems(at(kv))]

    assert found(needed - spread - 0.1) == [("kv-cache", True)]
    assert found(needed - spread / 2) == [("kv-cache", False)]
    assert found(needed + spread / 2) == [("kv-cache", False)]
    assert found(needed + spread + 0.1) == []
    assert fit_answer.shortage(at(needed + spread / 2)).startswith("vLLM may not start")
    assert fit_answer.shortage(at(needed + spread + 0.1)) == ""
