"""One evaluation, as `dsv4 eval` requests it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .task import Task


@dataclass(frozen=True)
class EvalRequest:
    """A task and how it is run; `limit` None runs every question, `max_tokens` None takes the task's."""

    task: Task
    thinking: str
    limit: int | None
    max_tokens: int | None
    temperature: float
    concurrency: int
    out: Path
    resume: bool
    dry_run: bool
    run_code: bool
    python: str


def default_python(environ: Mapping[str, str]) -> str:
    """Return the Python whose lm-eval is used: DSV4_EVAL_PYTHON, else this one."""
    return environ.get("DSV4_EVAL_PYTHON") or sys.executable
