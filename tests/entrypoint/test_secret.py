"""A secret is known by the words of its name, in every flag, variable and key of the pinned vLLM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dsv4_serve.entrypoint.secret import MASK, is_secret, masked
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
    ],
)
def test_what_is_masked(name: str, value: Any, shown: Any) -> None:
    assert masked(name, value) == shown
