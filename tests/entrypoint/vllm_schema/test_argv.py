"""vLLM's own arguments, read as vLLM reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.errors import ConfigError, UsageError, UserError
from dsv4_serve.entrypoint.vllm_schema import argv

EXTRA = "kv-transfer-config.kv_connector_extra_config"


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--max-num-seqs", "4"], {"max-num-seqs": 4}),
        (["--max-num-seqs=4"], {"max-num-seqs": 4}),
        (["--max_num_seqs", "4"], {"max-num-seqs": 4}),
        (["-tp", "2"], {"tensor-parallel-size": 2}),
        (["-tp=2"], {"tensor-parallel-size": 2}),
        (["--enforce-eager", "--port", "1"], {"enforce-eager": True, "port": 1}),
        (["--no-enable-prefix-caching"], {"enable-prefix-caching": False}),
        (["--served-model-name", "a", "b"], {"served-model-name": ["a", "b"]}),
        (["--speculative-config.num_speculative_tokens", "2"], {"speculative-config.num_speculative_tokens": 2}),
        (["--speculative-config", '{"method":"mtp"}'], {"speculative-config.method": "mtp"}),
        (["-sc", '{"method":"mtp"}'], {"speculative-config.method": "mtp"}),
        (["--compilation-config.pass_config.fuse_norm_quant", "true"], None),
        (["--max-model-len", "-1"], {"max-model-len": -1}),
        (["--gpu-memory-utilization", ".9"], {"gpu-memory-utilization": 0.9}),
        (["--port", "1", "--port", "1"], {"port": 1}),
        (["-O3"], {"optimization-level": "3"}),
        (["-O=1"], {"optimization-level": "1"}),
        (["-O", "2"], {"optimization-level": "2"}),
        (["--max-model-len", "auto"], {"max-model-len": "auto"}),
        (["--allowed-origins", '["*"]'], {"allowed-origins": ["*"]}),
        (["--speculative-config", "null"], {"speculative-config": None}),
        (["--middleware", "a", "--middleware", "b"], {"middleware": ["a", "b"]}),
        (["--hf-token"], {"hf-token": True}),
        (["--hf-overrides", '{"rope": {"a.b": 1}}'], {"hf-overrides.rope": {"a.b": 1}}),
        ([f"--{EXTRA}.a", "1", f"--{EXTRA}.b", "[2]"], {f"{EXTRA}.a": 1, f"{EXTRA}.b": [2]}),
        ([f"--{EXTRA}", '{"a": 1, "b": {"c": 2}}'], {f"{EXTRA}.a": 1, f"{EXTRA}.b": {"c": 2}}),
        ([f"--{EXTRA}", '{"lmcache.mp.host": 1}'], {EXTRA: {"lmcache.mp.host": 1}}),
        ([f"--{EXTRA}", "{}"], {EXTRA: {}}),
    ],
)
def test_every_spelling_that_vllm_takes_is_taken(words: list[str], settings: dict[str, object] | None) -> None:
    read = {name: setting.value for name, setting in argv.read(words).items()}
    assert settings is None or read == settings


@pytest.mark.parametrize("words", [["4"], ["--max-num-seqs"], ["--served-model-name"], ["--"], ["-"], ["---"]])
def test_arguments_that_are_not_flags_or_lack_a_value_are_a_usage_error(words: list[str]) -> None:
    with pytest.raises(UsageError):
        argv.read(words)


@pytest.mark.parametrize(
    "words",
    [
        ["--speculative-config", "[1]"],
        ["--speculative-config", "mtp"],
        ["--speculative-config", '{"a.b": 1}'],
        ["--max-num-seqs.x", "1"],
        ["--no-max-num-seqs"],
        ["--enforce-eager", "--no-enforce-eager"],
    ],
)
def test_values_that_vllm_would_refuse_are_a_config_error(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        argv.read(words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "65536"], "at least 1 and at most 65535"),
        (["--port", "-1"], "at least 1 and at most 65535"),
        (["--speculative-config.num_speculative_tokens", "-1"], "it must be at least 0"),
        ([f"--{EXTRA}.secondary_tiers+", "{}"], "not supported; leave out the \\+ and write the whole"),
    ],
)
def test_what_only_the_start_would_refuse_or_vllm_would_misread_is_refused_with_what_to_write(
    words: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        argv.read(words)


def test_a_number_that_no_float_holds_is_a_number() -> None:
    words = ["--kv-transfer-config", f'{{"kv_connector_extra_config": {{"cpu_bytes_to_use": {10**400}}}}}']
    assert argv.read(words)[f"{EXTRA}.cpu_bytes_to_use"].value == 10**400


WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "--",
            "-tp",
            "--port",
            "-O3",
            "--speculative-config",
            "-sc",
            "{}",
            '{"method":',
            "--no-",
            "--a=b",
            "--x.y=1",
            "1",
        ]
    ),
    st.sampled_from(
        ["--compilation-config.", "--compilation-config", "--hf-overrides", '{"a":{"b":[1]}}', "nan", "inf"]
    ),
)


@given(st.lists(WORDS, max_size=6))
def test_any_arguments_end_in_settings_or_in_one_of_our_errors(words: list[str]) -> None:
    try:
        argv.read(words)
    except UserError as error:
        assert str(error)


def test_every_flag_that_vllm_does_not_take_is_answered_at_once() -> None:
    settings, problems = argv.read_all(["--no-such-flag", "x", "y", "--dtype", "fp8", "--max-num-seqs", "4"])
    assert ["--no-such-flag" in problems[0], "dtype = 'fp8'" in problems[1], len(problems)] == [True, True, 2]
    assert {name: setting.value for name, setting in settings.items()} == {"max-num-seqs": 4}
    with pytest.raises(ConfigError, match=r"^2 problems:\n1\. .*no-such-flag.*\n2\. .*fp8"):
        argv.read(["--no-such-flag", "--dtype", "fp8"])


def test_secrets_are_found_within_json_and_in_arguments_that_vllm_would_reject() -> None:
    words = ["--kv-transfer-config", '{"kv_connector_extra_config": {"s3": {"password": "one"}}}', "stray"]
    words += ["--additional-config", '{"token": "two"', "--hf-token", "three", "--nonsense", "x"]
    words += ["--additional-config.s3", '{"secret_key": "four"}', "--port", "many", "--api-key", "five", "six"]
    assert argv.secrets_in(words) == {"one", "two", "three", "four", "five", "six"}


def test_an_error_in_json_does_not_show_its_secrets() -> None:
    with pytest.raises(ConfigError, match=r"--additional-config: '\{\"password\": \"\*\*\*\", ' is not valid JSON"):
        argv.read(["--additional-config", '{"password": "hunter2", '])
    with pytest.raises(ConfigError, match=r"watermark-config.key = '\*\*\*' has the wrong type"):
        argv.read(["--watermark-config", '{"key": "hunter2"}'])
