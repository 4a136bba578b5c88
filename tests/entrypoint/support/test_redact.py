"""No secret leaves the machine in a support bundle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.support import redact

SECRET = "s3cr3tvalue"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"'authorization': 'bearer {SECRET}'",
        f"vllm serve --api-key {SECRET} --port 1",
        f"--api-key={SECRET}",
        f"api_key='{SECRET}', model='x'",
        f'{{"api_key": "{SECRET}", "x": 1}}',
        f"x-api-key: {SECRET}",
        f"--hf-token {SECRET}",
        f"hf_token={SECRET}",
        f"http://user:{SECRET}@proxy:3128/x",
        f"token hf_{SECRET} given",
        f"sk-{SECRET}",
        f"password={SECRET}",
        f"config={{'extra': {{'token': '{SECRET}', 'n': 1}}}}",
        f'{{"extra": {{"jwt": "{SECRET}"}}}}',
    ],
)
def test_what_looks_like_a_secret_is_masked_where_nothing_names_it(text: str) -> None:
    assert SECRET not in redact.redacted(text, ())


@given(st.text(min_size=4, max_size=40), st.text(max_size=60), st.text(max_size=60))
def test_a_known_secret_is_in_no_text(secret: str, before: str, after: str) -> None:
    text = redact.redacted(before + secret + after, {secret})
    assert secret not in text.replace(redact.MASK, "\0") or secret in redact.MASK


def test_a_secret_that_holds_another_is_masked_whole() -> None:
    assert redact.redacted("abcdefgh abcd", {"abcd", "abcdefgh"}) == "*** ***"


def test_the_environment_holds_what_reaches_vllm_and_no_secret() -> None:
    environ = {
        "PROFILE": "524k",
        "API_KEY_FILE": "/run/secrets/api-key",
        "API_KEY": SECRET,
        "VLLM_API_KEY": SECRET,
        "HF_TOKEN": SECRET,
        "NCCL_DEBUG": "INFO",
        "EDITOR": "vi",
        "LANG": "C",
    }
    assert redact.environment(environ) == {
        "API_KEY": "***",
        "API_KEY_FILE": "/run/secrets/api-key",
        "HF_TOKEN": "***",
        "NCCL_DEBUG": "INFO",
        "PROFILE": "524k",
        "VLLM_API_KEY": "***",
    }
    assert redact.secrets_in(environ) == {SECRET}


@pytest.mark.parametrize(
    ("text", "shown"), [("/home/ann/x", "~/x"), ("/home/anna/x", "/home/anna/x"), ("at /home/ann", "at ~")]
)
def test_the_home_directory_is_not_named(text: str, shown: str) -> None:
    assert redact.redacted(text, (), "/home/ann") == shown


@pytest.mark.parametrize("text", ["max_tokens: 5", "num_speculative_tokens=1", "secretary", "tokens: 3 of 4"])
def test_ordinary_words_stay(text: str) -> None:
    assert redact.redacted(text, ()) == text
