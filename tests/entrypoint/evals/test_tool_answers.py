"""The answers that `dsv4 eval tools --resume` finds: kept as they were, and one sentence where they cannot be read."""

import json
from dataclasses import asdict

import pytest

from dsv4_serve.entrypoint.client.answers import Reply
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.evals import runs
from dsv4_serve.entrypoint.evals.tool_answers import ToolAnswers
from dsv4_serve.entrypoint.smoke import calls

GOOD = {"scenario": "a", "round": 0, "turn": 0, "fault": ""}


@pytest.mark.parametrize(
    "line",
    [
        b"{bad}",
        b"5",
        b"[" * 100_000,
        b"\xff",
        *(json.dumps(GOOD | more).encode() for more in ({}, {"reply": {"x": 1}}, {"reply": {"content": 1}})),
        json.dumps(GOOD | {"round": {}, "reply": asdict(Reply("a", "", "stop", 1, 1, 2))}).encode(),
    ],
    ids=["no-json", "number", "deep", "bytes", "no-reply", "another-reply", "part-of-a-reply", "no-round"],
)
def test_answers_that_cannot_be_read_are_one_sentence(tmp_path, line):
    (answers := tmp_path / "answers.jsonl").write_bytes(b'{"sampling": {}}\n' + line + b"\n")
    with pytest.raises(ConfigError, match=r"answers.jsonl: a line does not hold an answer \(.+\); move") as raised:
        ToolAnswers(answers)
    assert "\n" not in str(raised.value)


def test_a_kept_answer_is_read_as_it_was(tmp_path):
    (path := tmp_path / "answers.jsonl").write_text('{"sampling": {}}\n')
    reply = Reply("a", "b", "tool_calls", 1, 2, 3, [{"id": "1", "function": {"name": "f", "arguments": "{}"}}], [], [])
    (answers := ToolAnswers(path)).keep(("a", 0, 1), reply, "fault", 0.1)
    answers.close()
    (again := ToolAnswers(path)).close()
    assert again.known == {("a", 0, 1): (reply, "fault")}


def test_arguments_and_sampling_that_are_nested_too_deeply_are_said(tmp_path):
    assert calls.arguments({"function": {"arguments": "[" * 100_000}}) is None
    (made := tmp_path / "eval/x-20260101T000000.000000Z").mkdir(parents=True)
    (made / "answers.jsonl").write_bytes(b"[" * 100_000 + b"\n")
    with (
        pytest.raises(ConfigError, match="does not hold the sampling"),
        runs.folder(tmp_path, "x", {}, resume=True, keep=True),
    ):
        pass
