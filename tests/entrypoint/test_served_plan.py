"""What a plan says of the server."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint import served_plan, supervision_settings
from dsv4_serve.entrypoint.plan import Plan, Setting


def plan(supervision: dict[str, Setting] | None = None, **flags: int) -> Plan:
    named = {name.replace("_", "-"): Setting(value, "test") for name, value in flags.items()}
    return Plan({}, named, {}, supervision=supervision_settings.defaults() | (supervision or {}))


@pytest.mark.parametrize(("tokens", "grace"), [({}, 35.0), ({"max_num_batched_tokens": 8192}, 35.0)])
def test_a_step_of_31_seconds_and_one_of_8192_slow_tokens_take_no_replica_out(tokens: dict, grace: float) -> None:
    assert served_plan.ready_grace(plan(**tokens)) == grace > max(31.0, 8192 / 500)


def test_a_plan_with_larger_steps_waits_longer() -> None:
    assert served_plan.ready_grace(plan(max_num_batched_tokens=32768)) == 32768 / 500 + 4.0


def test_a_grace_that_is_set_is_kept() -> None:
    short = {"supervise.ready-grace": Setting(3.0, "environment DSV4_SUPERVISE_READY_GRACE")}
    assert served_plan.ready_grace(plan(short, max_num_batched_tokens=32768)) == 3.0


def test_with_a_key_file_vllm_gets_a_key_of_this_process_alone() -> None:
    keyed = Plan({}, {}, {"VLLM_API_KEY": Setting("alice's", "environment API_KEY_FILE = keys")})
    own = served_plan.with_own_key(keyed, {"API_KEY_FILE": "keys"})
    assert len(served_plan.key(own)) == 64
    assert own == served_plan.with_own_key(keyed, {"API_KEY_FILE": "keys"})  # resolved again, it is the same plan
    assert own.env["VLLM_API_KEY"].origin == keyed.env["VLLM_API_KEY"].origin
    assert served_plan.with_own_key(keyed, {}) is keyed
    assert served_plan.with_own_key(plan(), {"API_KEY_FILE": "keys"}).env == {}
