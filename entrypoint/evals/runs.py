"""The folder of one evaluation: FOLDER/eval/SUBJECT-<date>/, with its answers, samples and lm-eval's log."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import plain_file
from ..errors import ConfigError, HostError, UsageError

ANSWERS = "answers.jsonl"
"""The answers in order of arrival; the first line holds the sampling."""
SAMPLES = "samples.jsonl"
"""One line for each question: messages, target, answer, scores; written when all is scored."""
LOG = "lm-eval.log"


@contextmanager
def folder(out: Path, subject: str, sampling: Mapping[str, Any], *, resume: bool, keep: bool) -> Iterator[Path]:
    """
    Yield the folder of a run: a new one, or with `resume` the newest of this subject; a dry run's is removed.

    Raise UsageError when there is none to resume or its answers were sampled differently, ConfigError for answers
    without their sampling, HostError when it cannot be written.
    """
    parent = out / "eval"
    if not keep:
        with tempfile.TemporaryDirectory(prefix="dsv4-eval-") as name:
            yield _begin(Path(name), sampling)
        return
    if not resume:
        yield _begin(parent / f"{subject}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}".replace("/", "-"), sampling)
        return
    named = re.compile(re.escape(subject.replace("/", "-")) + r"-\d{8}T\d{6}\.\d{6}Z")
    kept = [answers for answers in parent.glob(f"*/{ANSWERS}") if named.fullmatch(answers.parent.name)]
    begun = [answers for answers in kept if answers.is_file() and answers.stat().st_size]
    earlier = sorted(answers.parent for answers in begun)  # empty: killed before the first answer
    if not earlier:
        raise UsageError(f"{parent} has no run of {subject} to resume; start one without --resume.")
    before = _sampling(earlier[-1] / ANSWERS)
    if before != sampling:
        changed = [name for name in sampling if sampling[name] != before.get(name)]
        was = ", ".join(f"{name} {before.get(name)}" for name in changed)
        raise UsageError(
            f"{earlier[-1]} was started with {was}; resume it with the same settings, or start again without --resume."
        )
    yield earlier[-1]


def _sampling(answers: Path) -> dict[str, Any]:
    with plain_file.open_regular(answers) as file:
        try:
            return dict(plain_file.parse_json(file.readline(plain_file.MIB))["sampling"])
        except (ValueError, LookupError, TypeError):
            raise ConfigError(
                f"{answers}: its first line does not hold the sampling settings; move the folder away to"
                " resume the run before it, or start again without --resume."
            ) from None


def _begin(made: Path, sampling: Mapping[str, Any]) -> Path:
    try:
        made.mkdir(parents=True, exist_ok=True)
        (made / ANSWERS).write_text(json.dumps({"sampling": dict(sampling)}) + "\n", encoding="utf-8")
    except OSError as error:
        raise HostError(f"cannot write {made} ({error.strerror}); choose another folder with --out.") from None
    return made
