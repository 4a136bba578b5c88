"""Every setting that takes memory counts on every hardware; what is left out is said; refused only beyond the uncertainty."""

from __future__ import annotations

import dataclasses

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.memory import advice as fit_answer
from dsv4_serve.entrypoint.memory import checks, estimate
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve import memory_inputs
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select

SKIP = ("weights", "kv-cache", "tensor-parallel-size", "profile-model", "profile-hardware")


def planned(profile: str, model: str, hardware: str, **flags):
    choices = {"profile": profile, "model": model, "hardware": hardware}
    request = Request(
        {key: Setting(value, "test") for key, value in choices.items()},
        skip=SKIP,
        command_line=Layer({n if "." in n else n.replace("_", "-"): Setting(v, "test") for n, v in flags.items()}),
    )
    selection = select(Catalog([]), request, lambda: pytest.fail("the hardware was named"))
    return selection, resolve(selection, request)


def memory_of(profile: str, model: str, hardware: str, **flags) -> estimate.MemoryEstimate:
    selection, resolved = planned(profile, model, hardware, **flags)
    found = memory_inputs.estimate(selection, resolved.flags)
    assert found
    return found


def test_a_changed_number_of_sequences_is_what_the_plan_promises() -> None:
    assert memory_of("1m", "acti", "rtx-pro-6000").requests == 1
    assert memory_of("1m", "acti", "rtx-pro-6000", max_num_seqs=8).requests == 8


def test_too_many_sequences_are_not_blamed_on_the_weights() -> None:
    memory = memory_of("524k", "w4a16", "h200", max_num_seqs=10**6)
    answer = fit_answer.fit(memory)
    assert "weights and overhead leave no room" in fit_answer.text(memory, answer)
    [most] = [one.value for one in answer.advice if one.flag == "max-num-seqs"]
    assert memory_of("524k", "w4a16", "h200", max_num_seqs=most).admits
    assert not dataclasses.replace(memory, sequences=int(most) + 1).admits
    whole = memory_of("524k", "pro", "h200")
    assert "the weights leave no room" in fit_answer.text(whole, fit_answer.fit(whole))


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
    ("flags", "message"),
    [
        ({"enable_lora": True}, "LoRA"),
        (
            {"kv-transfer-config.kv_connector": "NixlConnector", "kv-transfer-config.kv_role": "kv_both"},
            "KV connector",
        ),
        ({"enable_eplb": True}, "EPLB"),
    ],
)
def test_what_is_not_counted_is_said(flags: dict[str, object], message: str) -> None:
    found = memory_of("64k", "flash", "h200", **flags)
    assert any(message in what for what in found.not_counted)
    assert message in fit_answer.text(found, fit_answer.fit(found))


def test_v41_is_not_counted_and_says_so() -> None:
    selection, resolved = planned("v41", "v41-flash", "h200")
    assert memory_inputs.estimate(selection, resolved.flags) is None
    assert "Engram" in memory_inputs.unsized(selection, resolved.flags)


def test_images_are_not_counted_and_said_to_be_left_out() -> None:
    assert "images" in " ".join(memory_of("64k", "flash-vision", "h200").not_counted)
    assert not memory_of("64k", "flash-vision", "h200", language_model_only=True).not_counted


def test_a_plan_is_refused_only_beyond_the_uncertainty_and_warned_of_within_it() -> None:
    base = dataclasses.replace(memory_of("524k", "w4a16", "rtx-pro-6000"), requests=1)
    needed = base.request_gib
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
