"""The data files: every figure names a task and a metric that exist, and what is broken in a user's file is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError, UsageError
from dsv4_serve.entrypoint.evals import task
from dsv4_serve.entrypoint.resolve import environment

TASKS = task.read(task.HERE / "tasks.toml")
FIGURES = tomllib.loads((task.HERE / "published.toml").read_text())["figure"]


SIZES = {"gsm8k": 1319, "aime": 30, "aime25": 30, "humaneval": 164, "ifeval": 541, "mmlu-pro": 12032}
"""Questions in the whole data set."""


@pytest.mark.parametrize("figure", FIGURES, ids=lambda one: f"{one['model']}-{one['task']}-{one['correct']}")
def test_a_published_figure_is_one_that_a_run_can_be_compared_with(figure: dict) -> None:
    named = TASKS[figure["task"]]
    assert figure["metric"] in named.metrics
    assert figure["thinking"] in task.THINKING
    assert figure["model"] in Catalog(environment.folders()).names("model")
    assert 0 < figure["correct"] <= figure["total"] <= SIZES[figure["task"]]
    assert "model card of " in figure["source"]


def test_the_figure_of_most_samples_comes_first() -> None:
    found = task.published("w4a16", "gsm8k", "chat", "exact_match,strict-match")
    assert [one.share.total for one in found] == [1319, 50]


def test_a_model_that_is_not_known_has_no_figures() -> None:
    assert task.published(None, "gsm8k", "chat", "exact_match,strict-match") == []


def test_a_thinking_answer_gets_what_the_context_leaves() -> None:
    assert TASKS["aime"].answer_tokens("high", 65536) == 65036  # what the publisher of w4a16 gave it
    assert TASKS["aime"].answer_tokens("high", 1048576) == 65536
    assert TASKS["gsm8k"].answer_tokens("chat", 65536) == 2048


def test_a_context_without_room_for_an_answer_is_refused() -> None:
    with pytest.raises(UsageError, match="reserves 4096 tokens for the prompt.*context is 2048.*--max-tokens"):
        TASKS["gsm8k"].answer_tokens("chat", 2048)


def test_chat_says_that_it_does_not_think() -> None:
    """vLLM 0.32.0 thinks where nothing is said (tokenizers/deepseek_v4.py)."""
    assert task.THINKING["chat"] == {"thinking": False}


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean gsm8k.*aime, aime25, gsm8k"):
        task.find("gsm8")


OWN = "[own]\nask=['x']\nmetrics=['m']\nthinking='chat'\nprompt-tokens=1\nchat-tokens=1"


def test_a_task_of_the_user_is_read(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    found = task.find("own", path)
    assert (found.name, found.ask, found.metrics, found.runs_code) == ("own", ("x",), ("m",), False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[own]\nask = ['x']", r"\[own\] is not a task \('metrics'\)"),
        ("own = 3", r"\[own\] is not a task"),
        (
            "[own]\nask=['x']\nmetrics=['m']\nthinking='deep'\nprompt-tokens=1\nchat-tokens=1",
            "'thinking'.*'chat', 'high' or 'max'",
        ),
        (OWN.replace("['x']", "'x'"), "'ask'"),
        (OWN.replace("['x']", "[3]"), "'ask.0'"),
        (OWN.replace("['x']", "[]"), "'ask'"),
        (OWN.replace("'chat'", "['chat']"), "'thinking'"),
        (OWN.replace("prompt-tokens=1", "prompt-tokens='x'"), "'prompt-tokens'"),
        (f"{OWN}\nconfig.day=2026-01-01", "'config.day"),
        ("[own]\nask=['x']\nmetrics=['m']\nsurplus=1", "surplus"),
        ("[own", "invalid TOML"),
    ],
)
def test_what_is_wrong_in_a_file_of_tasks_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        task.find("own", path)
