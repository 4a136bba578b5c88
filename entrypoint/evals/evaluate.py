"""`dsv4 eval`: what a run will take, the run as a child process, its receipt and its verdict."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import procfs, results
from ..client.endpoint import Endpoint
from ..errors import HostError, UsageError, UserError
from . import intervals, pace, runs
from .intervals import Share
from .progress import Progress, Say
from .served import Served
from .task import THINKING, Task, published
from .task_request import Asked

INSTALL = "pip install '.[eval]' in a checkout, or name a Python that has it with --python (DSV4_EVAL_PYTHON)"
_FIND = "from importlib.util import find_spec as find; assert find('lm_eval') and find('requests')"
_HARNESS = Path(__file__).resolve().parent / "harness.py"


def evaluate(place: Endpoint, served: Served, asked: Asked, say: Say) -> dict[str, Any]:
    """
    Run one evaluation, write its receipt, and return it with its path as `file`; empty after a dry run.

    Raise UsageError for what may not be run, HostError where lm-eval is missing, UserError with lm-eval's words when
    it fails; what was answered until then is kept, and `resume` goes on there.
    """
    if asked.task.runs_code and not asked.run_code:
        raise UsageError(
            f"{asked.task.name} runs Python that the model writes, on this machine, as this user; do it in a container,"
            " and say so with --confirm-run-unsafe-code."
        )
    _check_harness(asked.python)
    sampling = {
        "max_tokens": asked.max_tokens or asked.task.answer_tokens(asked.thinking, served.context),
        "temperature": asked.temperature,
        "chat_template_kwargs": dict(THINKING[asked.thinking]),
    }
    subject = f"{asked.task.name}-{asked.thinking}-{served.model or served.name}"
    folder = runs.folder(asked.out, subject, sampling, resume=asked.resume, keep=not asked.dry_run)
    if served.skipped:
        say(f"what the replica is made of is left out of the receipt: {served.skipped}")
    with folder as kept:
        rate = pace.measured(asked.out, asked.concurrency, served.replica)
        result = _run(_job(place, served, asked, sampling, kept), asked.python, place.key, rate, say)
        if result is None:
            return {}
        body = {
            "subject": subject,
            "task": asked.task.name,
            "thinking": asked.thinking,
            "model": served.model,
            "sampling": sampling,
            "limit": asked.limit,
            "concurrency": asked.concurrency,
            **result,
            "scores": scores(asked.task, asked.thinking, served.model, result),
            "samples": str((kept / runs.SAMPLES).relative_to(asked.out)),
            "replica": served.replica,
        }
        return {**body, "file": str(results.write(asked.out, "eval", body))}


def scores(task: Task, thinking: str, model: str | None, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each metric with its interval, and the published figures with the verdict on each."""
    found = []
    for metric in task.metrics:
        share = Share(result["correct"][metric], result["total"])
        whole = result["total"] - result["cut"]
        found.append(
            {
                "metric": metric,
                "correct": share.correct,
                "total": share.total,
                "interval": [round(one, 4) for one in share.interval()],
                "of-whole-answers": [result["correct-of-whole"][metric], whole],
                "published": [
                    {
                        "correct": figure.share.correct,
                        "total": figure.share.total,
                        "interval": [round(one, 4) for one in figure.share.interval()],
                        "settings": figure.settings,
                        "source": figure.source,
                        "difference": [round(one, 4) for one in intervals.difference(share, figure.share)],
                        "verdict": intervals.verdict(share, figure.share),
                    }
                    for figure in published(model, task.name, thinking, metric)
                ],
            }
        )
    return found


def verdict(receipt: Mapping[str, Any]) -> str | None:
    """Return the verdict on the first metric against the published figure of most samples; None where none is known."""
    figures = receipt["scores"][0]["published"]
    return str(figures[0]["verdict"]) if figures else None


def _check_harness(python: str) -> None:
    try:
        found = subprocess.run([python, "-P", "-c", _FIND], capture_output=True, check=False)
    except OSError as error:
        raise HostError(f"{python}: cannot be started ({error.strerror}); name a Python with --python.") from None
    if found.returncode:
        raise HostError(f"{python} has no lm-eval, which asks and scores the tasks: {INSTALL}.")


def _job(place: Endpoint, served: Served, asked: Asked, sampling: Mapping[str, Any], kept: Path) -> dict[str, Any]:
    task = asked.task
    return {
        "url": f"{place.url}/v1/chat/completions",
        "model": served.name,
        "sampling": sampling,
        "ask": task.ask,
        "folder": task.folder,
        "config": task.config,
        "metrics": task.metrics,
        "limit": -(-asked.limit // len(task.ask)) if asked.limit else None,
        "concurrency": asked.concurrency,
        "run-code": asked.run_code and task.runs_code,
        "dry-run": asked.dry_run,
        "patience": 2.0,
        "answers": str(kept / runs.ANSWERS),
        "samples": str(kept / runs.SAMPLES),
    }


def _run(
    job: Mapping[str, Any], python: str, key: str | None, rate: tuple[float, str] | None, say: Say
) -> dict[str, Any] | None:
    """Run the child and follow its events; return its result, None after a dry run."""
    progress: Progress | None = None
    log = Path(job["answers"]).with_name(runs.LOG)
    again = "" if job["dry-run"] else f" --resume goes on; lm-eval's words are in {log}."
    with _child(python, job, key, log) as events:
        for event in events:
            if "planned" in event:
                progress = Progress(event["planned"], event["left"], job["sampling"]["max_tokens"])
                say(progress.plan(rate))
            elif "tokens" in event and progress:
                progress.count(event["tokens"], cut=event["cut"], say=say)
            elif "result" in event:
                return dict(event["result"])
            elif "error" in event:
                raise UserError(f"{event['error'].rstrip('.')}.{again}")
    if job["dry-run"] and progress:
        return None
    raise UserError(f"lm-eval ended without a result.{again}")


@contextmanager
def _child(python: str, job: Mapping[str, Any], key: str | None, log: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """Start the harness; yield its events; end it when this ends, even by SIGKILL."""
    environ = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    environ.pop("DSV4_EVAL_KEY", None)
    if key:
        environ["DSV4_EVAL_KEY"] = key
    with (
        log.open("ab") as words,
        subprocess.Popen(
            [python, "-P", str(_HARNESS)],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
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
