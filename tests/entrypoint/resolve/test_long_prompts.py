"""The share of a step that one long prompt gets."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.resolve import long_prompts
from dsv4_serve.entrypoint.resolve.layers import resolve
from tests.support.plans import request, selected


def flags(**values: Any) -> dict[str, Setting]:
    return {name.replace("_", "-"): Setting(value, "test") for name, value in values.items()}


@pytest.mark.parametrize(
    ("given", "threshold"),
    [
        ({"max_num_batched_tokens": 8192, "max_model_len": 524288}, 4096),
        ({"max_num_batched_tokens": 2048, "max_model_len": 2049}, 1024),
        ({"max_num_batched_tokens": 2048, "max_model_len": 2048}, None),
        ({"max_num_batched_tokens": 2048}, None),
        ({"max_model_len": 65536}, None),
        ({"max_num_batched_tokens": 8192, "max_model_len": 65536, "long_prefill_token_threshold": 0}, None),
        ({"max_num_batched_tokens": 8192, "max_model_len": 65536, "enable_chunked_prefill": False}, None),
    ],
)
def test_it_is_half_of_a_step_where_a_prompt_can_be_longer(given: dict[str, Any], threshold: int | None) -> None:
    found = long_prompts.named(flags(**given))
    assert {name: setting.value for name, setting in found.items()} == (
        {} if threshold is None else {long_prompts.THRESHOLD: threshold}
    )


@pytest.mark.parametrize("profile", ["64k", "524k", "1m"])
@pytest.mark.parametrize("hardware", ["h200", "rtx-pro-6000", "b300"])
def test_in_every_plan_for_a_gpu_a_long_prompt_leaves_half_of_a_step(profile: str, hardware: str) -> None:
    wanted = request(hardware=hardware, profile=profile, model="w4a16")
    plan = resolve(selected(wanted), wanted)
    assert plan.value(long_prompts.THRESHOLD) * 2 == plan.value("max-num-batched-tokens")
    assert "half of max-num-batched-tokens" in plan.flags[long_prompts.THRESHOLD].origin
