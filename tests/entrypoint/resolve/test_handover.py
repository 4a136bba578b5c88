"""Secrets reach vLLM by environment; a variable that looks as if it set the key is answered."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import served_plan
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.resolve import handover
from tests.support.plans import request, resolved


def test_what_a_secret_replaced_stands_beneath_its_variable(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "64k"\n[flags]\nhf-token = "f1rst"\n')
    plan = resolved(request(profile="mine", hardware="h200", hf_token="s3cret"), Catalog([tmp_path]))
    token = plan.env["HF_TOKEN"]
    assert "f1rst" not in str(plan.to_json())
    below = [(one.value, one.origin) for one in token.overridden]
    assert (token.value, below) == ("s3cret", [("f1rst", f"{tmp_path}/mine.toml [flags]")])


@pytest.mark.parametrize(("flag", "variable"), [("api_key", "VLLM_API_KEY"), ("hf_token", "HF_TOKEN")])
def test_a_secret_flag_becomes_a_variable_and_is_no_argument(flag: str, variable: str) -> None:
    value = ["s3cret"] if flag == "api_key" else "s3cret"
    plan = resolved(request(hardware="h200", **{flag: value}))
    assert plan.environment(secrets=True)[variable] == "s3cret"
    assert plan.env[variable].origin == "test"
    assert "s3cret" not in " ".join(plan.argv(secrets=True))
    assert "s3cret" not in str(plan.to_json()) + plan.command()


def test_a_bare_token_flag_stays_an_argument() -> None:
    plan = resolved(request(hardware="h200", hf_token=True))
    assert "--hf-token" in plan.argv()
    assert "HF_TOKEN" not in plan.env


def test_several_keys_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="holds 2 keys.*Use one key") as caught:
        resolved(request(hardware="h200", api_key=["first", "second"]))
    assert "second" not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("middleware", ["my.package.Guard", "redis://u:hunter2@host"]),
        ("middleware", ["my.package.Guard?token=hunter2"]),
        ("middleware", ["hunter2"]),
        ("model", "https://u:hunter2@host/flash"),
    ],
)
def test_a_secret_that_could_only_be_an_argument_is_refused_and_not_shown(flag: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^test: {flag} (holds a secret|is not valid)") as caught:
        handover.check_arguments({flag: Setting(value, "test")})
    assert "hunter2" not in str(caught.value)


def test_a_middleware_of_the_users_is_passed_on() -> None:
    assert "my.package.Guard" in resolved(request(hardware="h200", middleware=["my.package.Guard"])).argv()
    with pytest.raises(ConfigError, match="middleware is not valid"):
        resolved(request(hardware="h200", middleware=["Guard"]))


@pytest.mark.parametrize(
    "name",
    [
        "API_KEY",
        "APIKEY",
        "API_KEYS",
        "API_KEY_FILES",
        "API_KEYFILE",
        "API_KEY_FLIE",
        "api_key",
        "API_TOKEN",
        "DSV4_API_KEY",
        "DSV4_API_KEY_FILE",
        "API_KEY_PATH",
        "API_KEY_1",
    ],
)
def test_near_misses_of_the_key_are_refused_where_no_key_is_set(name: str) -> None:
    with pytest.raises(ConfigError, match=f"environment {name}: .*API_KEY_FILE") as caught:
        resolved(request(hardware="h200", operator={name: "s3cret"}))
    assert "s3cret" not in str(caught.value)
    resolved(request(hardware="h200", operator={name: "s3cret", "VLLM_API_KEY": "key"}))
    resolved(request(hardware="h200", operator={name: ""}))


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "APP_KEY", "WANDB_API_KEY", "AZURE_API_KEY", "APIARY", "AWS_ACCESS_KEY_ID", "API_PORT"]
)
def test_keys_of_other_programs_are_left_alone(name: str) -> None:
    handover.check_near_misses({name: "x"}, {})


@pytest.mark.parametrize(
    ("in_container", "named", "host", "is_open"),
    [
        (False, {}, "127.0.0.1", False),
        (True, {}, "0.0.0.0", True),
        (False, {"api_key": ["key"]}, "0.0.0.0", False),
        (True, {"api_key": ["key"]}, "0.0.0.0", False),
        (False, {"host": "10.0.0.1"}, "10.0.0.1", True),
        (False, {"host": "::"}, "::", True),
        (True, {"host": "::1"}, "::1", False),
        (True, {"host": "127.0.0.2"}, "127.0.0.2", False),
        (True, {"uds": "/run/vllm", "skip": ("no-http",)}, "0.0.0.0", False),
    ],
)
def test_without_a_key_a_host_listens_on_loopback(
    in_container: bool, named: dict[str, object], host: str, is_open: bool
) -> None:
    plan = resolved(dataclasses.replace(request(hardware="h200", **named), in_container=in_container))
    assert plan.value("host") == host
    assert bool(served_plan.open_address(plan)) == is_open
