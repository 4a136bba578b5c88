"""Read the tasks (tasks.toml) and the publishers' own figures (published.toml)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from .. import toml_file
from ..errors import ConfigError, UsageError, listed, nearest
from ..validation import first_error
from .intervals import Share

HERE = Path(__file__).resolve().parent
TOOLS = "tools"
"""The task that is a program of ours (tool_eval.py), not one of lm-eval."""
THINKING: Mapping[str, Mapping[str, Any]] = {
    "chat": {"thinking": False},
    "high": {"thinking": True, "reasoning_effort": "high"},
    "max": {"thinking": True, "reasoning_effort": "max"},
}
"""`chat_template_kwargs` by mode. Without any, vLLM 0.32.0 thinks (`high`): tokenizers/deepseek_v4.py."""
LONGEST_ANSWER = 65536
"""Tokens of a thinking answer: the publishers' limit for AIME."""


Names = Annotated[tuple[str, ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


class Task(BaseModel):
    """One task; the head of tasks.toml explains the fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"), validate_by_name=False
    )

    name: str
    ask: Names
    metrics: Names
    thinking: Literal["chat", "high", "max"]
    prompt_tokens: Count
    chat_tokens: Count
    folder: str | None = None
    runs_code: bool = False
    config: dict[str, JsonValue] = {}

    def answer_tokens(self, thinking: str, context: int) -> int:
        """Return the most tokens of an answer in a context of so many tokens; raise UsageError when none remain."""
        remaining = context - self.prompt_tokens
        if remaining < 1:
            raise UsageError(
                f"{self.name} reserves {self.prompt_tokens} tokens for the prompt, but this replica's context is"
                f" {context}; set the tokens of an answer with --max-tokens."
            )
        return min(remaining, self.chat_tokens if thinking == "chat" else LONGEST_ANSWER)


@dataclass(frozen=True)
class Figure:
    """A published figure of one model for one task, mode and metric."""

    share: Share
    settings: str
    source: str


def read(path: Path) -> dict[str, Task]:
    """Return the tasks of a file by name; raise ConfigError for an invalid one."""
    return {name: _task(path, name, table) for name, table in toml_file.read(path).items()}


def _task(path: Path, name: str, table: Any) -> Task:
    try:
        return Task.model_validate({**table, "name": name} if isinstance(table, dict) else table)
    except ValidationError as error:
        where, what = first_error(error)
        raise ConfigError(
            f"{path}: [{name}] is not a task ({where!r}): {what}; see the head of {HERE / 'tasks.toml'}."
        ) from None


def find(name: str, more: Path | None = None) -> Task:
    """Return a task of ours, or of the user's own file; raise UsageError for an unknown name."""
    tasks = read(HERE / "tasks.toml") | (read(more) if more else {})
    if name not in tasks:
        known = [*tasks, TOOLS]
        raise UsageError(f"{name!r} is not a task{nearest(name, known)}; known tasks are {listed(known)}.")
    return tasks[name]


def published(model: str | None, task: str, thinking: str, metric: str) -> list[Figure]:
    """Return the comparable figures of one model, the one with most samples first."""
    key = {"model": model, "task": task, "thinking": thinking, "metric": metric}
    figures = [
        Figure(Share(entry["correct"], entry["total"]), entry["settings"], entry["source"])
        for entry in toml_file.read(HERE / "published.toml")["figure"]
        if all(entry[name] == value for name, value in key.items())
    ]
    return sorted(figures, key=lambda figure: -figure.share.total)
