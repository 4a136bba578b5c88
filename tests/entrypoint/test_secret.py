"""A secret is known by the words of its name, in every flag, variable and key of the pinned vLLM."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dsv4_serve.entrypoint.secret import MASK, forms, hidden, is_secret, masked, named_in, secrets_in, without_secrets
from dsv4_serve.entrypoint.vllm_schema import schema

SECRETS = {"api-key", "hf-token", "watermark-config.key", "VLLM_API_KEY", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"}
"""Those of vLLM 0.32.0."""


def keys(table: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, inner in table.get("keys", {}).items():
        yield f"{path}.{key}"
        yield from keys(inner, f"{path}.{key}")


def test_the_secrets_of_vllm_are_these_and_no_others() -> None:
    facts = schema.facts()
    names = [*facts["flags"], *facts["env"], *(n for flag, table in facts["json"].items() for n in keys(table, flag))]
    assert len(names) > 500
    assert {name for name in names if is_secret(name)} == SECRETS


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN",
        "API_KEY",
        "API_KEY_2",
        "OPENAI_API_KEY",
        "WANDB_API_KEY",
        "DB_PASSWORD",
        "DSV4_EVAL_KEY",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "apiKey",
        "secretKey",
        "ssl_keyfile_password",
        "s3.access_key",
        "basic_auth",
        "redis_pw",
        "jwt",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "API_KEY_FILE",
        "ssl-keyfile",
        "MAX_NUM_BATCHED_TOKENS",
        "NUM_SPECULATIVE_TOKENS",
        "tokenizer",
        "TOKENIZERS_PARALLELISM",
        "HF_TOKEN_PATH",
        "allow-credentials",
        "allowed-headers",
        "monkey",
        "PASSED_ON",
        "SSH_AUTH_SOCK_PATH",
    ],
)
def test_names_that_only_look_like_it(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("api-key", ["one", "two"], MASK),
        ("api-key", "", ""),
        ("hf-token", True, True),
        ("kv-transfer-config.extra", {"s3": {"secret_key": "x", "port": 1}}, {"s3": {"secret_key": MASK, "port": 1}}),
        ("proxy", "http://me:pass@host/x", f"http://me:{MASK}@host/x"),
        ("proxy", "https://hf_abc@host/x", f"https://{MASK}@host/x"),
        ("proxy", "http://host/a@b", "http://host/a@b"),
        ("proxy", "http://host?a@b", "http://host?a@b"),
        ("middleware", ["a", "redis://:pass@host"], ["a", f"redis://:{MASK}@host"]),
        ("model", "org/name", "org/name"),
        (
            "x.extra",
            {"credentials": {"id": "a", "n": 3, "on": True}},
            {"credentials": {"id": MASK, "n": MASK, "on": True}},
        ),
        ("x.extra", {"headers": ["Authorization: Bearer abcd1234"]}, {"headers": [f"Authorization: Bearer {MASK}"]}),
        ("x.extra", '{"token": "abc", "n": 1}', f'{{"token": "{MASK}", "n": 1}}'),
        ("x.extra", '[{"n": 1}]', '[{"n": 1}]'),
        ("x.extra", "{{ template }}", "{{ template }}"),
        ("url", "https://h/x?api_key=abc&n=1", f"https://h/x?api_key={MASK}&n=1"),
        ("served-model-name", ["hf_" + "a" * 34], [MASK]),
        ("x.extra", {"env": ["TOKEN=abc", "N=1", "no TOKEN=xyz"]}, {"env": [f"TOKEN={MASK}", "N=1", "no TOKEN=xyz"]}),
        ("x.extra", "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----", f"{MASK} PRIVATE KEY-----"),
        (
            "model",
            "/models/hf_deepseek_v4_flash_w4a16_fp8_mtp_experts",
            "/models/hf_deepseek_v4_flash_w4a16_fp8_mtp_experts",
        ),
        ("url", "AccountName=a;AccountKey=abc==;n=1", f"AccountName=a;AccountKey={MASK};n=1"),
    ],
)
def test_what_is_masked(name: str, value: Any, shown: Any) -> None:
    assert masked(name, value) == shown
    assert bool(secrets_in(name, value)) == (shown != value)
    assert not any(secret in str(shown) for secret in secrets_in(name, value) if len(secret) > 2)


def test_every_secret_of_a_value_is_found() -> None:
    value = {"password": 123456, "list": [{"token": ["x", "y"]}], "url": "redis://u:abc@h", "text": '{"api_key": "k"}'}
    assert secrets_in("kv-transfer-config.extra", value) == {"123456", "x", "y", "abc", "k"}
    assert secrets_in("api-key", ["one", "two"]) == {"one", "two"}
    assert secrets_in("api-key", [None, "", True]) == set()


@pytest.mark.parametrize("secret", ['with"quote', "with'both\"", "schlüssel", "two\\lines", "a\tb\tc\td"])
def test_a_secret_is_hidden_as_json_and_python_print_it(secret: str) -> None:
    for printed in (
        secret,
        json.dumps({"x": secret}),
        json.dumps({"x": secret}, ensure_ascii=False),
        str({"x": secret}),
    ):
        text = hidden(f"config: {printed}", {secret})
        assert MASK in text
        assert not any(form in text for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]))


def test_a_short_secret_is_masked_between_quotes_only() -> None:
    assert hidden("config: {'password': 'demo'} of demo", {"demo"}) == f"config: {{'password': {MASK}}} of demo"
    assert forms("abcde") == {"'abcde'", '"abcde"'}
    assert "abcdef" in forms("abcdef")


def test_each_line_of_a_long_secret_counts() -> None:
    assert hidden("x abcdefg y hijklmn ab", {"abcdefg\nhijklmn\nab"}) == f"x {MASK} y {MASK} ab"


def test_broken_json_does_not_show_its_secrets() -> None:
    text = '{"password": "hunter2", "url": "redis://u:abcdef@h", "n": 1'
    assert without_secrets(text) == f'{{"password": "{MASK}", "url": "redis://u:{MASK}@h", "n": 1'
    assert named_in(text) == {"hunter2", "abcdef"}
    assert named_in("--hf-token abc --port 8") == {"abc"}
