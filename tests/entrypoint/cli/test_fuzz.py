"""Whatever the profile, the environment and the command line hold: a plan, or one of our errors. Never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsv4_serve.entrypoint.cli.main import main
from tests.support.examples import examples

NAMES = st.sampled_from(
    ["64k", "524k", "demo", "pro", "acti", "flash", "h200", "cpu", "rtx-pro-6000", "b300", "none", "p2p-on", "mine", ""]
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
SCALAR = st.one_of(TEXT, st.integers(-5, 2**40), st.floats(), st.booleans())
FLAG = st.sampled_from(
    [
        "max-model-len",
        "max-num-seqs",
        "gpu-memory-utilization",
        "speculative-config",
        "compilation-config",
        "port",
        "model",
    ]
)
KEY = st.sampled_from(["method", "num_speculative_tokens", "pass_config", "cudagraph_capture_sizes", "a.b", ""])
TREE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3))
ENVIRONMENT = st.dictionaries(
    st.sampled_from(
        [
            "PROFILE",
            "MODEL",
            "HARDWARE",
            "TP",
            "MAX_MODEL_LEN",
            "MAX_NUM_SEQS",
            "GPU_MEM_UTIL",
            "GPU_MEMORY_UTILIZATION",
            "PORT",
            "DSV4_NCCL",
            "DSV4_SKIP",
            "SERVED_MODEL_NAME",
            "NUM_SPECULATIVE_TOKENS",
            "VLLM_USE_DEEP_GEMM",
            "VLLM_X",
            "NCCL_PROTO",
            "API_KEY_FILE",
            "DSV4_PROFILES",
        ]
    ),
    TEXT | NAMES | st.integers(-3, 9).map(str),
    max_size=5,
)
ARGV = st.lists(
    st.sampled_from(["--profile", "--model", "--hardware", "--tp", "--nccl", "--skip", "--", "--max-num-seqs", "-sc"])
    | NAMES
    | TEXT
    | TREE.map(json.dumps),
    max_size=6,
)


def _run(argv: list[str], environ: dict[str, str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environ, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            status = main(["explain", *argv])
        except SystemExit as done:  # --help
            status = 0 if done.code in (0, None) else 1
    assert status in (0, 64, 78)
    assert bool(err.getvalue()) == (status != 0)


@settings(max_examples=examples(150), deadline=None)
@given(ARGV, ENVIRONMENT)
def test_any_command_line_and_environment_end_in_a_plan_or_our_error(argv: list[str], environ: dict[str, str]) -> None:
    _run(argv, environ)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value).lower() if isinstance(value, (bool, float)) else json.dumps(value)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(FLAG | TEXT, TREE, max_size=4),
    st.dictionaries(st.sampled_from(["NCCL_PROTO", "VLLM_X", "a b", "model"]), SCALAR, max_size=2),
    st.sampled_from(["", 'extends = "128k"\n', 'extends = "mine"\n', "requests = 0\n", "models = 3\n", "[[when]]\n"]),
    st.dictionaries(FLAG, TREE, max_size=3),
)
def test_any_profile_ends_in_a_plan_or_our_error(
    tmp_path: Path, flags: dict[str, object], env: dict[str, object], head: str, when: dict[str, object]
) -> None:
    text = f"{head if '[[' not in head else ''}flags = {_toml(flags)}\nenv = {_toml(env)}\n"
    text += f"[[when]]\nhardware = 'h200'\nflags = {_toml(when)}\n" if when else ""
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    _run(["--profile", "mine", "--hardware", "h200"], {"DSV4_PROFILES": str(tmp_path)})


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_as_a_profile_end_in_a_plan_or_our_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    _run(["--profile", "mine", "--hardware", "h200"], {"DSV4_PROFILES": str(tmp_path)})
