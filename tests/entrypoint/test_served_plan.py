"""What a plan says of the server."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4_serve.entrypoint import served_plan, supervision_settings
from dsv4_serve.entrypoint.plan import Plan, Setting


def plan(supervision: dict[str, Setting] | None = None, **flags: int) -> Plan:
    named = {name.replace("_", "-"): Setting(value, "test") for name, value in flags.items()}
    return Plan({}, named, {}, supervision=supervision_settings.defaults() | (supervision or {}))


def graces(given: Plan) -> tuple[float, float]:
    supervise = served_plan.supervision(given).supervise
    return supervise.ready_grace, supervise.live_grace


@pytest.mark.parametrize("tokens", [{}, {"max_num_batched_tokens": 8192}])
def test_a_step_of_31_seconds_and_one_of_8192_slow_tokens_take_no_replica_out(tokens: dict[str, Any]) -> None:
    ready, live = graces(plan(**tokens))
    assert (ready, live) == (35.0, 120.0)
    assert ready > max(31.0, 8192 / 500)


def test_a_plan_with_larger_steps_waits_longer_until_it_is_not_ready_and_until_it_is_ended() -> None:
    assert graces(plan(max_num_batched_tokens=16384)) == (16384 / 500 + 4.0, 120.0)
    assert graces(plan(max_num_batched_tokens=65536)) == (65536 / 500 + 4.0, 2 * 65536 / 500)


@pytest.mark.parametrize(("name", "expected"), [("ready", (3.0, 262.144)), ("live", (135.072, 3.0))])
def test_a_grace_that_is_set_is_kept(name: str, expected: tuple[float, float]) -> None:
    short = {f"supervise.{name}-grace": Setting(3.0, f"environment DSV4_SUPERVISE_{name.upper()}_GRACE")}
    assert graces(plan(short, max_num_batched_tokens=65536)) == expected


def test_other_settings_stay_as_the_plan_has_them() -> None:
    given = plan({"supervise.poll": Setting(0.5, "test")}, max_num_batched_tokens=65536)
    assert served_plan.supervision(given).supervise.poll == 0.5
    assert served_plan.supervision(given).gate == supervision_settings.read(given.supervision).gate


def test_with_a_key_file_vllm_gets_a_key_of_this_process_alone() -> None:
    keyed = Plan({}, {}, {"VLLM_API_KEY": Setting("alice's", "environment API_KEY_FILE = keys")})
    own = served_plan.with_own_key(keyed, {"API_KEY_FILE": "keys"})
    assert len(served_plan.key(own)) == 64
    assert own == served_plan.with_own_key(keyed, {"API_KEY_FILE": "keys"})  # resolved again, it is the same plan
    assert own.env["VLLM_API_KEY"].origin == keyed.env["VLLM_API_KEY"].origin
    assert served_plan.with_own_key(keyed, {}) is keyed
    assert served_plan.with_own_key(plan(), {"API_KEY_FILE": "keys"}).env == {}
