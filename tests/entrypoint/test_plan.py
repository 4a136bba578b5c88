"""How a plan is written out."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.plan import DRAFT_TOKENS, Plan, Setting, draft_tokens
from dsv4_serve.entrypoint.secret import MASK
from tests.support.plans import request, resolved


def plan(shapes: dict[str, str] | None = None, **values: object) -> Plan:
    flags = {name.replace("_", "-"): Setting(value, "test") for name, value in values.items()}
    return Plan({}, flags, {}, shapes or {})


@pytest.mark.parametrize(
    ("shape", "value", "argv"),
    [
        ("", 4, ["--flag", "4"]),
        ("", {"a": [1]}, ["--flag", '{"a":[1]}']),
        ("", [1, 2], ["--flag", "[1,2]"]),
        ("", None, []),
        ("switch", True, ["--flag"]),
        ("switch", False, []),
        ("negatable", False, ["--no-flag"]),
        ("spread", ["a", "b"], ["--flag", "a", "b"]),
        ("repeated", ["a", "b"], ["--flag", "a", "--flag", "b"]),
    ],
)
def test_a_flag_is_written_by_its_shape(shape: str, value: object, argv: list[str]) -> None:
    assert plan({"flag": shape}, flag=value).argv() == ["vllm", "serve", *argv]


def test_a_command_has_one_line_for_each_flag_also_where_a_value_looks_like_one() -> None:
    written = plan(
        {"names": "spread", "each": "repeated"}, model="m", names=["--a", "b c"], each=["x", "--y"]
    ).command()
    assert written.split(" \\\n") == ["vllm serve m", "  --each x", "  --each --y", "  --names --a 'b c'"]


def test_a_secret_is_masked_unless_it_is_requested() -> None:
    secret = plan(api_key="s3cret")
    assert secret.argv()[-1] == MASK
    assert secret.argv(secrets=True)[-1] == "s3cret"


def test_zero_draft_tokens_switch_speculation_off() -> None:
    without = resolved(request(hardware="h200", **{DRAFT_TOKENS: 0}))
    assert "--speculative-config" not in without.argv()
    assert without.draft_tokens == 0
    assert resolved(request(hardware="h200")).draft_tokens == 1


def test_draft_tokens_are_one_where_speculation_is_on_and_vllm_finds_out() -> None:
    assert draft_tokens({}) == 0
    assert draft_tokens({"speculative-config.method": "mtp"}) == 1
    assert draft_tokens({"speculative-config.method": "mtp", DRAFT_TOKENS: 3}) == 3


def test_the_tensor_parallel_size_is_one_where_a_plan_sets_none() -> None:
    assert plan().tensor_parallel_size == 1
    assert plan(tensor_parallel_size=4).tensor_parallel_size == 4


def test_flags_that_hold_a_secret_are_split_from_the_arguments() -> None:
    flags = {
        "model": Setting("m", "test"),
        "port": Setting(1, "test"),
        "kv-transfer-config.kv_connector": Setting("x", "test"),
        "kv-transfer-config.kv_connector_extra_config": Setting({"password": "hunter2", "e": 1e-06}, "test"),
        "lora-modules": Setting(["a", "redis://u:hunter3@h"], "test"),
        "middleware": Setting(["redis://u:hunter4@h"], "test"),
        "otlp": Setting("http://me:hunter5@h", "test", (Setting("http://me:hunter6@h", "test"),)),
    }
    split = Plan(
        {}, flags, {"HF_TOKEN": Setting("hunter7", "test")}, {"lora-modules": "spread", "middleware": "repeated"}
    )
    argv, secret = split.split_argv()
    assert argv == ["vllm", "serve", "m", "--middleware", "redis://u:hunter4@h", "--port", "1"]  # it takes one by one
    assert secret == {
        "kv-transfer-config": '{"kv_connector":"x","kv_connector_extra_config":{"password":"hunter2","e":1e-06}}',
        "lora-modules": ["a", "redis://u:hunter3@h"],
        "otlp": "http://me:hunter5@h",
    }
    assert split.secrets() == {f"hunter{number}" for number in range(2, 8)}
    assert not any(value in split.command() + str(split.to_json()) for value in split.secrets())
