"""One evaluation, as `dsv4 eval` requests it: of a task, or of the tool scenarios."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .task import Task


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """How an evaluation is run; `limit` None runs all of it."""

    thinking: str
    limit: int | None
    max_tokens: int | None
    temperature: float
    concurrency: int
    out: Path
    resume: bool
    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class EvalRequest(EvalSettings):
    """A task and how it is run; `max_tokens` None takes the task's."""

    task: Task
    run_code: bool
    python: str


@dataclass(frozen=True, kw_only=True)
class ToolEvalRequest(EvalSettings):
    """How the scenarios are run; `max_tokens` None leaves what the context allows."""

    rounds: int


def default_python(environ: Mapping[str, str]) -> str:
    """Return the Python whose lm-eval is used: DSV4_EVAL_PYTHON, else this one."""
    return environ.get("DSV4_EVAL_PYTHON") or sys.executable
