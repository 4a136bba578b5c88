"""Turn the options of `dsv4 eval` into a request."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from .task import find
from .task_request import EvalRequest, default_python
from .tool_eval import ToolEvalRequest


def request(options: argparse.Namespace, environ: Mapping[str, str]) -> EvalRequest:
    """Return the evaluation that the options request; raise UserError for an unknown task."""
    task = find(options.task, options.tasks)
    return EvalRequest(
        task=task,
        thinking=options.thinking or task.thinking,
        limit=options.limit,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        concurrency=options.concurrency,
        out=options.out,
        resume=options.resume,
        dry_run=options.dry_run,
        run_code=options.confirm_run_unsafe_code,
        python=options.python or default_python(environ),
    )


def tool_request(options: argparse.Namespace) -> ToolEvalRequest:
    """Return the run of the tool scenarios that the options request."""
    return ToolEvalRequest(
        thinking=options.thinking or "chat",
        rounds=options.rounds,
        limit=options.limit,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        concurrency=options.concurrency,
        out=options.out,
        resume=options.resume,
        dry_run=options.dry_run,
    )
