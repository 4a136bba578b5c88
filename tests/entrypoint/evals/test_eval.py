"""`dsv4 eval` with real lm-eval as a real process, against a chat endpoint whose answers are known."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import procfs, results
from dsv4_serve.entrypoint.evals.task import HERE
from tests.support.patience import slowness

from .conftest import KEY, SECONDS, Chat, completion, total

pytestmark = [pytest.mark.process, pytest.mark.slow]
Run = Callable[..., tuple[int, str, str]]


def samples(out: Path) -> list[dict]:
    (path,) = (out / "eval").glob("*/samples.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_wrong_and_cut_answers_are_counted_apart_and_the_verdict_follows(
    run: Run, chat: Chat, questions: Callable[[int], Path], harness_python: str, tmp_path: Path
) -> None:
    def answer(body: dict) -> dict:
        number = total(body)
        if number == 0:  # cut while it still thought: vLLM gives no content then
            return completion(None, "hm, Question: what was asked", "length")
        if number == 2:
            return completion("<think>no parser</think>So #### 2")
        if number == 4:
            return {"status": 503, "error": "busy"} if len(chat.requests) < 9 else completion("#### 4")
        return completion(f"#### {number if number < 14 else 7}", "let me add")

    chat.answer, chat.key = answer, KEY
    file = tmp_path / "key"
    file.write_text(KEY)
    argv = (
        "gsm8k",
        "--tasks",
        str(questions(12)),
        "--thinking",
        "high",
        "--model",
        "w4a16",
        "--python",
        harness_python,
    )
    status, out, err = run(*argv, "--api-key-file", str(file), "--format", "json")
    assert status == 0, err  # nothing is published of this task in this mode
    found = json.loads(out)
    assert (found["total"], found["cut"]) == (12, 1)
    assert found["correct"] == {"exact_match,strict-match": 6, "exact_match,flexible-extract": 6}
    assert found["scores"][0]["of-whole-answers"] == [6, 11]
    assert found["lm-eval"]
    assert f"12 requests, at most {12 * 7168:,} tokens of answers (7,168 each)" in err
    assert "12 of 12 answered, 1 cut" in err

    body = chat.requests[0]
    assert body["chat_template_kwargs"] == {"thinking": True, "reasoning_effort": "high"}
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("deepseek-v4-flash", 0.0, 7168)
    assert "stop" not in body, "lm-eval's `Question:` would end the reasoning"
    assert [one["role"] for one in body["messages"]] == ["user", "assistant"] * 2 + ["user"]

    kept = {one["document"]: one for one in samples(tmp_path / "out")}
    assert kept[0]["finish_reason"] == "length"
    assert kept[0]["content"] == ""
    assert kept[3]["reasoning"] == "let me add"
    assert kept[7]["scores"]["exact_match,strict-match"] == 0
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 4  # answers, samples, lm-eval's words, the result
    assert not [path for path in files if KEY in path.read_text()]
    (result,) = results.read(tmp_path / "out")
    assert result["kind"] == "eval"
    assert result["subject"] == "gsm8k-high-w4a16"


def test_killed_in_the_middle_it_goes_on_where_it_was(
    start: Callable, run: Run, chat: Chat, questions: Callable[[int], Path], *, harness_python: str, tmp_path: Path
) -> None:
    chat.seconds = 0.4
    chat.answer = lambda body: completion("#### 1")  # all wrong: 100% published for the model, so this is worse
    argv = ("gsm8k", "--tasks", str(questions(16)), "--python", harness_python, "--concurrency", "2")
    with start(*argv) as child:
        until = time.monotonic() + 120 * slowness()
        while len(chat.requests) < 6:
            assert time.monotonic() < until
            time.sleep(0.02)
        below = [process.pid for process in procfs.descendants(child.pid)]
        assert below
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    while any(Path(f"/proc/{pid}").exists() for pid in below):
        assert time.monotonic() < until, "the harness outlived its parent"
        time.sleep(0.05)
    (answers,) = (tmp_path / "out" / "eval").glob("*/answers.jsonl")
    there = len(answers.read_text().splitlines()) - 1
    assert 0 < there < 16
    with answers.open("a") as file:
        file.write('{"key": "half a li')  # as a kill in the middle of a write leaves it

    before, chat.seconds = len(chat.requests), 0.0
    status, out, err = run(*argv, "--resume")
    assert f"{16 - there} requests ({there} of 16 are already answered)" in err
    assert len(chat.requests) - before == 16 - there
    assert "gsm8k, chat, w4a16: 16 answers" in out
    assert "0 of 16 = 0.0%" in out
    assert "published 1236 of 1319 = 93.7% (92.3% to 94.9%): worse" in out
    assert out.splitlines()[-1] == "worse"
    assert status == 1


def test_a_replica_that_refuses_ends_it_at_once_with_its_own_message(
    run: Run, chat: Chat, questions: Callable[[int], Path], harness_python: str
) -> None:
    def answer(body: dict) -> dict:
        if total(body) == 0:
            return {"status": 400, "error": "max_tokens is too large"}
        time.sleep(100 * SECONDS)  # the others still generate
        return completion("")

    chat.answer = answer
    status, _, err = run("gsm8k", "--tasks", str(questions(3)), "--python", harness_python)
    assert status == 1
    assert "HTTP 400" in err
    assert "max_tokens is too large\"}. --resume continues; lm-eval's log is " in err
    assert "Traceback" not in err


def test_two_do_not_write_one_run(
    run: Run, chat: Chat, questions: Callable[[int], Path], harness_python: str, tmp_path: Path
) -> None:
    argv = ("gsm8k", "--tasks", str(questions(2)), "--python", harness_python)
    assert run(*argv)[0] == 0
    (answers,) = (tmp_path / "out" / "eval").glob("*/answers.jsonl")
    with answers.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, _, err = run(*argv, "--resume")
    assert status == 1
    assert f"{answers} is in use by another `dsv4 eval`" in err


def test_a_dry_run_asks_nothing_and_leaves_nothing(
    run: Run, chat: Chat, questions: Callable[[int], Path], harness_python: str, tmp_path: Path
) -> None:
    status, out, err = run(
        "gsm8k", "--tasks", str(questions(5)), "--limit", "4", "--python", harness_python, "--dry-run"
    )
    assert (status, out) == (0, "")
    assert "4 requests, at most 8,192 tokens of answers (2,048 each); the duration is unknown" in err
    assert chat.requests == []
    assert not (tmp_path / "out").exists()


def test_code_is_the_last_fenced_block_below_the_imports_of_its_prompt(harness_python: str) -> None:
    program = """
import json
import harness
doc = {"prompt": "from typing import List\\n\\ndef add(a: int) -> int:\\n"}
answers = ["Try `add`:\\n```python\\nwrong\\n```\\nBetter:\\n```python\\ndef add(a):\\n    return a\\n```", "pass", "```\\ncut"]
print(json.dumps(harness.FencedCode().apply([answers], [doc])))
"""
    given = os.environ | {"PYTHONPATH": str(HERE)}
    argv = [harness_python, "-P", "-c", program]
    found = json.loads(subprocess.run(argv, env=given, capture_output=True, text=True, check=True).stdout)
    head = "from typing import List\n"
    assert found == [[f"{head}def add(a):\n    return a\n", f"{head}pass", f"{head}cut"]]
