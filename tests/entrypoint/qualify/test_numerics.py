"""What vLLM answers becomes rows of log-probabilities, which are compared with the shipped reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsv4_serve.demo.numerics import compare, golden
from dsv4_serve.demo.numerics.prompts import GENERATED, PROMPTS, VOCAB
from dsv4_serve.entrypoint.qualify import checkpoint, small
from dsv4_serve.entrypoint.qualify.box import Box
from dsv4_serve.entrypoint.qualify.stages import numerics

REFERENCE = golden.load("tiny")


def answer(name: str, tokens: int, shift: float) -> dict[str, Any]:
    """Vllm's answer with the reference's log-probabilities, every second of them moved."""
    table = REFERENCE.tables[name]
    places = []
    for row, (ids, logprobs) in enumerate(zip(table.tokens, table.logprobs, strict=True)):
        moved = shift * (row % 2)
        places.append({int(token): float(value) + moved for token, value in zip(ids, logprobs, strict=True)})
    prompt = [None, *({str(token): {"logprob": value} for token, value in at.items()} for at in places[: tokens - 1])]
    generated = [{f"token_id:{token}": value for token, value in at.items()} for at in places[tokens - 1 :]]
    return {"choices": [{"prompt_logprobs": prompt, "logprobs": {"top_logprobs": generated}}]}


@pytest.mark.parametrize(("shift", "right"), [(0.0, True), (1.0, False)])
def test_the_references_own_answers_are_right_and_moved_ones_are_not(shift: float, right: bool) -> None:
    answers = [answer(prompt.name, len(prompt.tokens), shift) for prompt in PROMPTS]
    rows = numerics.rows(PROMPTS, answers, VOCAB)
    for prompt in PROMPTS:
        assert rows[prompt.name].shape[0] >= len(prompt.tokens) + GENERATED - 1
        assert np.isfinite(rows[prompt.name]).sum(axis=1).min() == golden.TOP
    found = compare.compare(REFERENCE, rows, compare.limits("cpu"))
    assert found.right == right
    outcome = numerics.judged([f"alone, {reason}" for reason in found.reasons], found.figures, "bf16")
    assert (outcome.verdict == "passed") == right


def test_a_request_forces_the_answer_and_asks_for_as_many_logprobs_as_vllm_gives() -> None:
    body = numerics.body(PROMPTS[0])
    assert body["allowed_token_ids"] == [PROMPTS[0].answer]
    assert body["logprobs"] == body["prompt_logprobs"] == 20
    assert body["cache_salt"] != numerics.body(PROMPTS[0])["cache_salt"]


def test_the_context_of_the_plan_gives_way_to_that_of_the_random_checkpoint() -> None:
    flags = ("--max-model-len", "4096", "--seed", "1", "--max-model-len=7", "--enforce-eager")
    assert small.without(flags, "max-model-len") == ("--seed", "1", "--enforce-eager")
    assert int(numerics.CONTEXT) >= max(len(prompt.tokens) for prompt in PROMPTS) + GENERATED


@pytest.mark.parametrize(
    ("hardware", "model", "limits"),
    [
        ("h200", "nvfp4", "gpu"),
        ("b300", "nvfp4", "gpu-w4a4"),
        ("rtx-pro-6000", "flash-0731-nvfp4", "gpu-w4a4"),
        ("b300", "flash", "gpu"),
    ],
)
def test_the_room_of_four_bit_activations_is_only_for_gpus_that_have_them(
    make_box: Callable[..., Box], hardware: str, model: str, limits: str
) -> None:
    box = make_box(hardware=hardware, profile="64k", model=model)
    layout = checkpoint.layout_of(box.selection)
    assert numerics.hardware_of(box, layout) == limits
    assert compare.limits(limits)
