"""Turn the options of `dsv4 eval` into a request."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .task import find
from .task_request import EvalRequest, EvalSettings, ToolEvalRequest, default_python


def request(options: argparse.Namespace, environ: Mapping[str, str]) -> EvalRequest:
    """Return the evaluation that the options request; raise UserError for an unknown task."""
    task = find(options.task, options.tasks)
    return EvalRequest(
        **_settings(options, task.thinking),
        task=task,
        run_code=options.confirm_run_unsafe_code,
        python=options.python or default_python(environ),
    )


def tool_request(options: argparse.Namespace) -> ToolEvalRequest:
    """Return the run of the tool scenarios that the options request."""
    return ToolEvalRequest(**_settings(options, "chat"), rounds=options.rounds)


def _settings(options: argparse.Namespace, thinking: str) -> dict[str, Any]:
    """Return the settings of every evaluation, by the fields of EvalSettings; `thinking` where none is chosen."""
    settings = {field.name: getattr(options, field.name) for field in fields(EvalSettings)}
    return {**settings, "thinking": options.thinking or thinking}
