"""Run `dsv4 eval`: the cost of a run, the run in a child process, its result and verdict."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import procfs, results, sentences
from ..client.endpoint import Endpoint
from ..errors import HostError, UsageError, UserError
from . import intervals, pace, runs
from .intervals import Share
from .progress import EvalProgress
from .served import ServedReplica
from .task import THINKING, Task, published
from .task_request import EvalRequest

log = logging.getLogger(__name__)

INSTALL = "pip install '.[eval]' in a checkout, or name a Python that has it with --python (DSV4_EVAL_PYTHON)"
_FIND = "from importlib.util import find_spec as find; assert find('lm_eval') and find('requests')"
_HARNESS = Path(__file__).resolve().parent / "harness.py"


def evaluate(endpoint: Endpoint, served: ServedReplica, request: EvalRequest) -> dict[str, Any]:
    """
    Run one evaluation, write its result, and return it with its path as `file`; empty after a dry run.

    Raise UsageError for a task that needs confirmation, HostError where lm-eval is missing, UserError with lm-eval's
    error when it fails; the answers so far are kept, and `resume` continues from them.
    """
    if request.task.runs_code and not request.run_code:
        raise UsageError(
            f"{request.task.name} runs Python code that the model writes, on this machine and as this user; run it in a"
            " container, and confirm that with --confirm-run-unsafe-code."
        )
    _check_harness(request.python)
    sampling = {
        "max_tokens": request.max_tokens or request.task.answer_tokens(request.thinking, served.context),
        "temperature": request.temperature,
        "chat_template_kwargs": dict(THINKING[request.thinking]),
    }
    subject = f"{request.task.name}-{request.thinking}-{served.model or served.name}"
    folder = runs.folder(request.out, subject, sampling, resume=request.resume, keep=not request.dry_run)
    if served.skipped:
        log.info(f"the replica's plan is missing from the result: {served.skipped}")
    with folder as kept:
        rate = pace.measured(request.out, request.concurrency, served.replica)
        result = _run(_job(endpoint, served, request, sampling, kept), request.python, endpoint.key, rate)
        if result is None:
            return {}
        body = {
            "subject": subject,
            "task": request.task.name,
            "thinking": request.thinking,
            "model": served.model,
            "sampling": sampling,
            "limit": request.limit,
            "concurrency": request.concurrency,
            **result,
            "scores": scores(request.task, request.thinking, served.model, result),
            "samples": str((kept / runs.SAMPLES).relative_to(request.out)),
            "replica": served.replica,
        }
        return {**body, "file": str(results.write(request.out, "eval", body))}


def scores(task: Task, thinking: str, model: str | None, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each metric with its interval, and the published figures with the verdict on each."""
    scored = []
    for metric in task.metrics:
        share = Share(result["correct"][metric], result["total"])
        whole = result["total"] - result["cut"]
        scored.append(
            {
                "metric": metric,
                **share.entry(),
                "of-whole-answers": [result["correct-of-whole"][metric], whole],
                "published": [
                    {
                        **figure.share.entry(),
                        "settings": figure.settings,
                        "source": figure.source,
                        "difference": [round(bound, 4) for bound in intervals.difference(share, figure.share)],
                        "verdict": intervals.verdict(share, figure.share),
                    }
                    for figure in published(model, task.name, thinking, metric)
                ],
            }
        )
    return scored


def verdict(result: Mapping[str, Any]) -> str | None:
    """Return the verdict on the first metric against the published figure with most samples; None without one."""
    figures = result["scores"][0]["published"]
    return str(figures[0]["verdict"]) if figures else None


def _check_harness(python: str) -> None:
    try:
        probe = subprocess.run([python, "-P", "-c", _FIND], capture_output=True, check=False)
    except OSError as error:
        raise HostError(f"{python}: cannot be started ({error.strerror}); name a Python with --python.") from None
    if probe.returncode:
        raise HostError(f"{python} has no lm-eval, which runs and scores the tasks: {INSTALL}.")


def _job(
    endpoint: Endpoint, served: ServedReplica, request: EvalRequest, sampling: Mapping[str, Any], kept: Path
) -> dict[str, Any]:
    task = request.task
    return {
        "url": f"{endpoint.url}/v1/chat/completions",
        "model": served.name,
        "sampling": sampling,
        "ask": task.ask,
        "folder": task.folder,
        "config": task.config,
        "metrics": task.metrics,
        "limit": -(-request.limit // len(task.ask)) if request.limit else None,
        "concurrency": request.concurrency,
        "run-code": request.run_code and task.runs_code,
        "dry-run": request.dry_run,
        "answers": str(kept / runs.ANSWERS),
        "samples": str(kept / runs.SAMPLES),
    }


def _run(job: Mapping[str, Any], python: str, key: str | None, rate: tuple[float, str] | None) -> dict[str, Any] | None:
    """Run the child and follow its events; return its result, None after a dry run."""
    progress: EvalProgress | None = None
    harness_log = Path(job["answers"]).with_name(runs.LOG)
    again = "" if job["dry-run"] else f" --resume continues; lm-eval's log is {harness_log}."
    with _child(python, job, key, harness_log) as events:
        for event in events:
            if "planned" in event:
                progress = EvalProgress(event["planned"], event["remaining"], job["sampling"]["max_tokens"])
                log.info(progress.plan(rate))
            elif "tokens" in event and progress:
                progress.count(event["tokens"], cut=event["cut"])
            elif "result" in event:
                return dict(event["result"])
            elif "error" in event:
                raise UserError(f"{sentences.ended(event['error'])}{again}")
    if job["dry-run"] and progress:
        return None
    raise UserError(f"lm-eval ended without a result.{again}")


@contextmanager
def _child(python: str, job: Mapping[str, Any], key: str | None, output: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """Start the harness and yield its events; it ends with this process, even after SIGKILL."""
    environ = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    environ.pop("DSV4_EVAL_KEY", None)
    if key:
        environ["DSV4_EVAL_KEY"] = key
    with (
        output.open("ab") as stderr,
        subprocess.Popen(
            [python, "-P", str(_HARNESS)],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=procfs.end_with_parent,  # noqa: PLW1509
        ) as child,
    ):
        assert child.stdin
        assert child.stdout
        try:
            child.stdin.write(json.dumps(job))
            child.stdin.close()
            yield (json.loads(line) for line in child.stdout)
        finally:
            child.terminate()
