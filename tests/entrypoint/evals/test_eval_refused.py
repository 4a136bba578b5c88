"""What `dsv4 eval` refuses before it sends anything, and what it reads off a replica."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import results
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.errors import ConfigError, UsageError
from dsv4_serve.entrypoint.evals import pace, runs, served
from dsv4_serve.entrypoint.evals.progress import EvalProgress
from dsv4_serve.entrypoint.resolve import environment

from .conftest import Chat

Run = Callable[..., tuple[int, str, str]]


def test_code_of_a_model_is_not_run_without_consent(run: Run, chat: Chat) -> None:
    status, _, err = run("humaneval")
    assert status == 64
    assert "runs Python code that the model writes" in err
    assert "--confirm-run-unsafe-code" in err
    assert chat.requests == []


def test_without_lm_eval_it_says_how_to_get_it(run: Run, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # -S: no site-packages, so no lm-eval
    bare.chmod(0o755)
    status, _, err = run("gsm8k", "--python", str(bare))
    assert status == 69
    assert "has no lm-eval" in err
    assert "pip install '.[eval]'" in err
    assert not (tmp_path / "out").exists()


def test_an_invalid_python_is_named(run: Run) -> None:
    status, _, err = run("gsm8k", DSV4_EVAL_PYTHON="/nowhere/python")
    assert status == 69
    assert "/nowhere/python: cannot be started (No such file or directory)" in err


@pytest.mark.parametrize(
    ("argv", "seen"),
    [
        (("gsm9k",), "did you mean gsm8k"),
        (("gsm8k", "--limit", "0"), "not a whole number of at least 1"),
        (("gsm8k", "--thinking", "deep"), "invalid choice"),
        (("gsm8k", "--surplus"), "does not take '--surplus'"),
        (("gsm8k", "--temperature", "nan"), "nan is not a valid temperature"),
        (("gsm8k", "--temperature", "-3"), "-3 is not a valid temperature"),
    ],
)
def test_a_mistake_on_the_command_line_is_reported_in_one_sentence(run: Run, argv: tuple[str, ...], seen: str) -> None:
    status, _, err = run(*argv)
    assert status == 64
    assert seen in err
    assert "Traceback" not in err


def test_a_missing_replica_is_reported(run: Run, chat: Chat) -> None:
    status, _, err = run("gsm8k", "--url", "http://127.0.0.1:9")
    assert status == 69
    assert "http://127.0.0.1:9/v1/models: no answer" in err
    assert chat.requests == []


@pytest.mark.parametrize(
    ("root", "model"),
    [("canada-quant/DeepSeek-V4-Flash-NVFP4-FP8-MTP", "nvfp4"), ("/models/mine", None)],
)
def test_the_model_is_known_by_its_repository(chat: Chat, root: str, model: str | None) -> None:
    chat.root = root
    found = served.identify(Endpoint(chat.url), Catalog(environment.folders()))
    assert (found.name, found.context, found.model) == ("deepseek-v4-flash", 8192, model)
    assert found.skipped == "no health server is named (--health)"


def test_what_the_user_says_of_the_model_counts(chat: Chat) -> None:
    assert served.identify(Endpoint(chat.url), Catalog(environment.folders()), "acti").model == "acti"


def test_resuming_takes_the_newest_run_and_the_same_sampling(tmp_path: Path) -> None:
    with runs.folder(tmp_path, "aime-high-a/b", {"max_tokens": 5}, resume=False, keep=True):
        pass
    with runs.folder(tmp_path, "aime-high-a/b", {"max_tokens": 7}, resume=False, keep=True) as second:
        pass
    with runs.folder(tmp_path, "aime-high-a/b", {"max_tokens": 7}, resume=True, keep=True) as again:
        assert again == second
    with (
        pytest.raises(UsageError, match="was started with max_tokens 7; resume it with the same"),
        runs.folder(tmp_path, "aime-high-a/b", {"max_tokens": 5}, resume=True, keep=True),
    ):
        pass
    with (
        pytest.raises(UsageError, match="no run of aime-high-b to resume"),
        runs.folder(tmp_path, "aime-high-b", {}, resume=True, keep=True),
    ):
        pass
    assert results.read(tmp_path) == []


def test_a_run_of_a_subject_that_only_begins_so_is_not_resumed(tmp_path: Path) -> None:
    with runs.folder(tmp_path, "gsm8k-chat-demo-v4", {}, resume=False, keep=True):
        pass
    with (
        pytest.raises(UsageError, match="no run of gsm8k-chat-demo to resume"),
        runs.folder(tmp_path, "gsm8k-chat-demo", {}, resume=True, keep=True),
    ):
        pass


@pytest.mark.parametrize("head", ["garbage", "{}", "[]", '{"sampling": 3}'])
def test_a_run_whose_answers_do_not_tell_their_sampling_is_not_resumed(tmp_path: Path, head: str) -> None:
    with runs.folder(tmp_path, "gsm8k-chat-a", {}, resume=False, keep=True) as begun:
        (begun / runs.ANSWERS).write_text(f"{head}\n")
    with (
        pytest.raises(ConfigError, match=r"answers\.jsonl: its first line does not hold the sampling settings"),
        runs.folder(tmp_path, "gsm8k-chat-a", {}, resume=True, keep=True),
    ):
        pass


def bench(out: Path, model: str, rows: dict[int, float]) -> None:
    replica = {"choices": {"model-name": model}, "machine": {"gpus": [{"name": "H200"}]}}
    same = {"input": 256, "output": 256, "tpot_p50": 9.0, "tpot_p99": 9.5, "ttft_p50": 90.0, "ttft_p99": 99.0}
    listed = [
        {**same, "batch": batch, "output_tokens_per_second": rate, "acceptance": None} for batch, rate in rows.items()
    ]
    results.write(out, "bench", {"subject": model, "replica": replica, "rows": listed})


def test_minutes_come_from_the_bench_of_the_same_model_on_the_same_gpus(tmp_path: Path) -> None:
    ours = {"choices": {"model-name": "w4a16"}, "machine": {"gpus": [{"name": "H200"}]}}
    assert pace.measured(tmp_path, 4, ours) is None
    bench(tmp_path, "nvfp4", {1: 1.0})
    assert pace.measured(tmp_path, 4, ours) is None
    bench(tmp_path, "w4a16", {16: 400.0, 1: 90.0, 4: 200.0})
    rate = pace.measured(tmp_path, 8, ours)
    assert rate is not None
    assert rate[0] == 200.0
    assert "batch 4 in w4a16-" in rate[1]
    assert "at most 10 minutes at 200 tokens/s (batch 4" in EvalProgress(60, 60, 2000).plan(rate)
    assert json.loads(next((tmp_path / "bench").glob("w4a16*")).read_text())["kind"] == "bench"
