"""One answer holds every problem of a request, whichever command reads it."""

from __future__ import annotations

import contextlib
import io
import os
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4_serve.entrypoint.cli.main import main
from tests.support.examples import examples

BASE = ["--hardware", "h200", "--profile", "64k", "--model", "w4a16"]
COMMANDS = (["explain"], ["serve", "--dry-run"])
FAULTS: dict[str, tuple[list[str], dict[str, str], str]] = {
    "flag that is none": (["--no-such-flag", "1"], {}, "has no flag --no-such-flag"),
    "value": (["--max-model-len", "many"], {}, "max-model-len = 'many'"),
    "size": (["--tp", "two"], {}, "command line --tp"),
    "own flag": (["--gate.tokens", "some"], {}, "gate.tokens = 'some'"),
    "skip": (["--skip", "memlok"], {}, "'memlok' is not a check"),
    "experts": (["--moe-backend", "b12x"], {}, "cannot use b12x"),
    "linear": (["--linear-backend", "triton"], {}, "cannot use triton"),
    "cache": (["--kv-cache-dtype", "bfloat16"], {}, "no bfloat16 cache"),
    "block": (["--block-size", "64"], {}, "block-size 64"),
    "indexer": (["--attention-config.indexer_kv_dtype", "mxfp4"], {}, "no mxfp4 cache"),
    "variable": ([], {"VLLM_NO_SUCH": "1"}, "does not read VLLM_NO_SUCH"),
    "variable's value": ([], {"VLLM_USE_DEEP_GEMM": "maybe"}, "VLLM_USE_DEEP_GEMM = 'maybe'"),
    "our variable": ([], {"MAX_NUM_SEQS": "few"}, "environment MAX_NUM_SEQS"),
    "our setting": ([], {"DSV4_GATE_TOKNS": "3"}, "environment DSV4_GATE_TOKNS"),
    "key": ([], {"API_KEY_FILE": "/no/such/key"}, "environment API_KEY_FILE"),
    "key by another name": ([], {"APIKEY": "k"}, "environment APIKEY"),
    "rule": ([], {"VLLM_CONFIGURE_LOGGING": "0"}, "--skip log-off"),
}
"""Arguments, variables, and what the answer says of them; each is wrong whatever the others are."""


def answer(argv: list[str], environ: dict[str, str]) -> tuple[int, str]:
    err = io.StringIO()
    kept = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    with (
        mock.patch.dict(os.environ, kept | environ, clear=True),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(err),
    ):
        status = main(argv)
    return status, err.getvalue()


@given(st.lists(st.sampled_from(list(FAULTS)), min_size=1, max_size=6, unique=True))
@settings(max_examples=examples(40), deadline=None)
def test_explain_and_serve_print_every_problem_of_a_request_in_one_answer(chosen: list[str]) -> None:
    argv = [word for name in chosen for word in FAULTS[name][0]]
    environ = {key: value for name in chosen for key, value in FAULTS[name][1].items()}
    for command in COMMANDS:
        status, output = answer([*command, *BASE, *argv], environ)
        assert status == 78
        assert [name for name in chosen if FAULTS[name][2] not in output] == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_names_that_are_not_known_are_answered_together(command: list[str]) -> None:
    argv = [*command, "--hardware", "h201", "--profile", "65k", "--nccl", "p3p"]
    status, output = answer(argv, {"VLLM_NO_SUCH": "1", "PORT": "x"})
    assert status == 78
    for part in ("no hardware 'h201'", "no profile '65k'", "no NCCL set 'p3p'", "VLLM_NO_SUCH", "environment PORT"):
        assert part in output


def test_a_variable_that_vllm_does_not_read_is_skipped_by_its_name_and_passed_on() -> None:
    argv, environ = ["explain", *BASE], {"VLLM_OF_A_FORK": "1", "VLLM_OTHER": "2"}
    output = answer(argv, environ)[1]
    assert "does not read VLLM_OF_A_FORK; correct or unset it. To override this, use --skip VLLM_OF_A_FORK." in output
    status, output = answer([*argv, "--skip", "VLLM_OF_A_FORK"], environ)
    assert status == 78
    assert "VLLM_OTHER" in output
    assert "VLLM_OF_A_FORK" not in output
    assert answer([*argv, "--skip", "VLLM_OF_A_FORK"], environ | {"DSV4_SKIP": "VLLM_OTHER"})[0] == 0
    assert "VLLM_USE_DEEP_GEMM' is not a check" in answer([*argv, "--skip", "VLLM_USE_DEEP_GEMM"], {})[1]


@pytest.mark.parametrize(("option", "way"), [("--gpus", "--tp"), ("--nodes", "--nnodes")])
def test_an_option_of_profiles_is_answered_with_what_a_plan_takes(option: str, way: str) -> None:
    status, output = answer(["explain", *BASE, option, "2"], {})
    assert status == 64
    assert "option of `dsv4 profiles`" in output
    assert way in output


def test_a_goal_that_auto_does_not_have_is_one_problem() -> None:
    output = answer(["explain", "--hardware", "h200", "--profile", "auto:fast"], {})[1]
    assert output.count("auto:fast") == 1
    assert "did you mean" in output


@pytest.mark.parametrize(
    ("argv", "counted"), [(["gb10", "--nodes", "2"], 2), (["gb10"], 2), (["h200", "--nodes", "2"], 4)]
)
def test_hosts_of_gb10_have_one_gpu_each(argv: list[str], counted: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "--hardware", *argv, "--model", "acti"]) == 0
    assert capsys.readouterr().out.startswith(f"{counted} x {argv[0]},")
