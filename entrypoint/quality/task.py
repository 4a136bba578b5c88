"""What can be asked (tasks.toml), and what publishers say they measured (published.toml)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsv4_serve.entrypoint import tomlfile
from dsv4_serve.entrypoint.errors import ConfigError, UsageError, listed, nearest
from dsv4_serve.entrypoint.quality.intervals import Share

HERE = Path(__file__).resolve().parent
THINKING: Mapping[str, Mapping[str, Any]] = {
    "chat": {"thinking": False},
    "high": {"thinking": True, "reasoning_effort": "high"},
    "max": {"thinking": True, "reasoning_effort": "max"},
}
"""`chat_template_kwargs` by mode. vLLM 0.32.0 thinks (`high`) where none are sent: tokenizers/deepseek_v4.py."""
LONGEST_ANSWER = 65536
"""Tokens of a thinking answer: what the publishers gave AIME."""


@dataclass(frozen=True)
class Task:
    """One task; fields as the head of tasks.toml explains them."""

    name: str
    about: str
    ask: tuple[str, ...]
    metrics: tuple[str, ...]
    thinking: str
    samples: int
    prompt_tokens: int
    chat_tokens: int
    folder: str | None = None
    runs_code: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)

    def answer_tokens(self, thinking: str, context: int) -> int:
        """Return the most tokens of an answer in a context of so many tokens; raise UsageError when none are left."""
        left = context - self.prompt_tokens
        if left < 1:
            raise UsageError(
                f"{self.name} keeps {self.prompt_tokens} tokens for the prompt, and this replica has a context of"
                f" {context}; name the tokens of an answer with --max-tokens."
            )
        return min(left, self.chat_tokens if thinking == "chat" else LONGEST_ANSWER)


@dataclass(frozen=True)
class Figure:
    """A published figure of one model for one task, mode and metric."""

    share: Share
    settings: str
    source: str


def read(path: Path) -> dict[str, Task]:
    """Return the tasks of a file by name; raise ConfigError that names what is wrong."""
    return {name: _task(path, name, table) for name, table in tomlfile.read(path).items()}


def _task(path: Path, name: str, table: Any) -> Task:
    try:
        fields = {key.replace("-", "_"): value for key, value in table.items()}
        fields |= {key: tuple(fields[key]) for key in ("ask", "metrics")}
        task = Task(name=name, **fields)
    except (TypeError, AttributeError, KeyError) as error:
        raise ConfigError(f"{path}: [{name}] is no task ({error}); see the head of {HERE / 'tasks.toml'}.") from None
    if task.thinking not in THINKING or not task.ask or not task.metrics:
        raise ConfigError(f"{path}: [{name}]: ask and metrics name one at least, thinking is {listed(THINKING)}.")
    return task


def find(name: str, more: Path | None = None) -> Task:
    """Return a task of ours, or of the user's own file; raise UsageError for a name that is none."""
    tasks = read(HERE / "tasks.toml") | (read(more) if more else {})
    if name not in tasks:
        raise UsageError(f"{name!r} is no task{nearest(name, tasks)}; there are {listed(tasks)}.")
    return tasks[name]


def published(model: str | None, task: str, thinking: str, metric: str) -> list[Figure]:
    """Return the figures of one model that can be compared, that of most samples first."""
    asked = {"model": model, "task": task, "thinking": thinking, "metric": metric}
    found = [
        Figure(Share(one["correct"], one["total"]), one["settings"], one["source"])
        for one in tomlfile.read(HERE / "published.toml")["figure"]
        if all(one[key] == value for key, value in asked.items())
    ]
    return sorted(found, key=lambda one: -one.share.total)
