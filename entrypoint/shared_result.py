"""
A result that its owner gives to everyone: `qualification/results/community/*.json`.

`dsv4 bench`, `dsv4 tune` and `dsv4 qualify` write it with `--share FILE`, without a path, a host name or a secret. Its
owner adds a name (`who`). `problems` says what speaks against a file, and CI asks it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from .errors import ConfigError, HostError
from .fingerprint import fingerprint
from .plan import TUNED_KERNELS
from .replica_description import flag_values
from .secret import is_secret
from .validation import sentence, text_like

FORMAT = 1
FIRST = date(2026, 11, 1)
"""No older result can have this format."""
LONGEST_CHANGE = 300
AS_SERVED = "as served"
_SLACK = 2.0
"""By how much tokens a second may be above what the median time per token allows; the mean may be smaller."""
_OF_THE_HOST = frozenset({"model", "served-model-name", "tokenizer", "host", "port", "api-key", "download-dir"})
_VISIBLE = "CUDA_VISIBLE_DEVICES"

_Name = Annotated[
    str,
    text_like(
        "[a-z0-9][a-z0-9.-]{0,59}",
        "write at most 60 lower-case letters, digits, dots and hyphens, a letter or digit first",
    ),
]
_Version = Annotated[
    str,
    text_like(
        "[0-9A-Za-z][0-9A-Za-z.+-]{0,59}",
        "write a version (at most 60 letters, digits, dots, hyphens and plus signs, a letter or digit first)",
    ),
]
_Count = Annotated[int, Field(ge=1, le=10_000_000)]
_Milliseconds = Annotated[float, Field(ge=0, le=3_600_000, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SharedRow(_Strict):
    """Figures of `vllm bench serve`, as in the row of a result. Times in ms."""

    batch: Annotated[int, Field(ge=1, le=100_000)]
    input: _Count
    output: _Count
    output_tokens_per_second: Annotated[float, Field(gt=0, le=1_000_000)]
    tpot_p50: _Milliseconds
    ttft_p50: _Milliseconds
    acceptance: _Share | None = None


class SharedCheck(_Strict):
    """One thing that `dsv4 qualify` proved, refuted, or could not try."""

    name: _Name
    verdict: Literal["pass", "fail", "skip"]
    detail: Annotated[str, Field(max_length=300)] = ""


class SharedResult(_Strict):
    """The whole file."""

    format: Literal[1]
    kind: Literal["bench", "tune", "qualify"]
    who: Annotated[str, text_like("([A-Za-z0-9][A-Za-z0-9_-]{0,38})?", "write your name on GitHub")] = ""
    """The name of its owner on GitHub; empty until they add it."""
    date: Annotated[str, text_like("[0-9]{4}-[0-9]{2}-[0-9]{2}", "write a day as 2026-11-30")]
    hardware: _Name
    """The name of a hardware file in `profiles/hardware`."""
    gpus: Annotated[int, Field(ge=0, le=4096)]
    driver: _Version | Literal[""]
    versions: Annotated[dict[_Name, _Version], Field(max_length=20)]
    """Of vLLM at least."""
    series: _Name | Literal[""]
    """The patch series that vLLM has."""
    profile: _Name
    model: _Name
    plan: Annotated[str, text_like("[0-9a-f]{16}", "write the plan's digest (16 hexadecimal digits)")]
    """The digest of the plan: `digest`."""
    weights: Annotated[str, Field(max_length=200)]
    rows: Annotated[list[SharedRow], Field(max_length=200)] = []
    checks: Annotated[list[SharedCheck], Field(max_length=200)] = []
    changes: Annotated[dict[str, JsonValue], Field(max_length=40)] = {}
    """Flags and variables that `dsv4 tune` changed."""


def digest(replica: Mapping[str, Any]) -> str:
    """
    Return a hash of a plan's flags and variables, without what only belongs to one host, such as ports and folders.

    `replica` is a description as `/plan` gives it, or `Plan.to_json()` with the plan's choices.
    """
    flags = {name: value for name, value in flag_values(replica).items() if name not in _OF_THE_HOST}
    variables = {name: variable(name, value) for name, value in (replica.get("env") or {}).items()}
    env = {
        name: value
        for name, value in variables.items()
        if name != _VISIBLE and not is_secret(name) and "/" not in value
    }
    return fingerprint(flags, env)


def variable(name: str, value: Any) -> str:
    """Return a variable's value as the same plan has it on every host: of the folder of tables its name."""
    return Path(str(value)).name if name == TUNED_KERNELS else str(value)


def series_digest(replica: Mapping[str, Any]) -> str:
    """Return a hash of the patches that the replica's vLLM has, by name and content."""
    patches = (replica.get("patches") or {}).get("patches") or ()
    return fingerprint(sorted((patch["name"], patch["sha256"]) for patch in patches))


def shared(kind: str, replica: Mapping[str, Any], weights: str, day: date, **parts: Any) -> dict[str, Any]:
    """Return what can be shared of a result; `parts` are `rows`, `checks` or `changes`."""
    choices, machine = replica.get("choices") or {}, replica.get("machine") or {}
    versions = {name: str(version) for name, version in (replica.get("versions") or {}).items()}
    whole = {
        "format": FORMAT,
        "kind": kind,
        "who": "",
        "date": day.isoformat(),
        "hardware": str(choices.get("hardware", "")),
        "gpus": len(machine.get("gpus") or ()),
        "driver": str(machine.get("driver", "")),
        "versions": versions,
        "series": str((replica.get("patches") or {}).get("series", "")),
        "profile": str(choices.get("profile", "")),
        "model": str(choices.get("model-name", "")),
        "plan": digest(replica),
        "weights": weights,
        **parts,
    }
    return {**whole, "rows": [_row(row) for row in whole["rows"]]} if "rows" in whole else whole


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in SharedRow.model_fields}


def write(path: Path, body: Mapping[str, Any]) -> None:
    """Write a new file; raise HostError where that is impossible, ConfigError for what may not be published."""
    if wrong := unpublishable(body):
        raise ConfigError(f"{path} was not written, since it would hold what should not be published: {wrong[0]}")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(body, indent=2) + "\n")
    except OSError as error:
        raise HostError(f"cannot write {path} ({error.strerror}); choose another file with --share.") from None


def check_writable(path: Path | None) -> None:
    """Raise HostError where `write` would, before anything is measured."""
    if path and (path.exists() or not path.absolute().parent.is_dir()):
        why = "it exists" if path.exists() else "its folder does not exist"
        raise HostError(f"cannot write {path} ({why}); choose another file with --share.")


def unpublishable(body: Any) -> list[str]:
    """Return what is wrong with a file that has no name yet: its types, and what may not be published."""
    try:
        found = SharedResult.model_validate(body)
    except ValidationError as error:
        return [f"{sentence(error)}."]
    return list(_unfit(found))


def problems(body: Any, today: date, hardware: Collection[str]) -> list[str]:
    """Return what speaks against a file in the repository, one sentence each; `hardware` are the known names."""
    try:
        found = SharedResult.model_validate(body)
    except ValidationError as error:
        return [f"{sentence(error)}."]
    return list(_problems(found, today, hardware))


def _problems(found: SharedResult, today: date, hardware: Collection[str]) -> Iterator[str]:
    if not found.who:
        yield "who is empty: write the name that the result is shown with."
    yield from _wrong_date(found.date, today)
    if found.hardware not in hardware:
        yield f"hardware {found.hardware!r} is unknown: use a name from profiles/hardware, or add its file first."
    if "vllm" not in found.versions:
        yield "versions has no vllm: a figure without the version of vLLM cannot be compared."
    if not found.rows and not found.checks:
        yield "it has neither rows nor checks, so it shows nothing."
    if found.weights != AS_SERVED and not found.weights.startswith("dummy weights"):
        yield f"weights is {found.weights!r}: it has to be {AS_SERVED!r}, or begin with 'dummy weights'."
    for number, row in enumerate(found.rows):
        yield from _absurd(row, f"rows.{number}")
    yield from _unfit(found)


def _unfit(found: SharedResult) -> Iterator[str]:
    for where, text in _texts(found):
        if because := unfit(text):
            yield f"{where}: {because}; remove it."


def _wrong_date(text: str, today: date) -> Iterator[str]:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        yield f"date {text!r} is not a day."
        return
    if day > today:
        yield f"date {text} is in the future."
    elif day < FIRST:
        yield f"date {text} is before {FIRST}, when this format began."


def _absurd(row: SharedRow, where: str) -> Iterator[str]:
    if not row.tpot_p50 and row.output > 1:
        yield f"{where}: tpot_p50 is 0, but {row.output} tokens cannot come at once."
    elif row.output > 1 and row.output_tokens_per_second > _SLACK * row.batch * 1000 / row.tpot_p50:
        yield (
            f"{where}: {row.output_tokens_per_second:g} tokens a second are more than {row.batch} requests"
            f" with {row.tpot_p50:g} ms a token can have."
        )


def _texts(found: SharedResult) -> Iterator[tuple[str, str]]:
    yield "weights", found.weights
    yield from ((f"checks.{check.name}", check.detail) for check in found.checks)
    for name, value in found.changes.items():
        text = f"{name} = {value}"
        yield "changes", text if len(text) <= LONGEST_CHANGE else "/too long/"


_DOMAINS = "com|net|org|io|ai|dev|local|localdomain|lan|internal|intranet|corp|home|edu|cloud"
_UNFIT = (
    (re.compile(r"(?<![\w.])[/~\\][\w.~-]+[/\\]|\b[A-Za-z]:\\|/too long/"), "a path, or a very long value"),
    (re.compile(r"\w://|\bwww\."), "an address"),
    (re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b"), "an IP address"),
    (re.compile(r"(?i)\b(?:[0-9a-f]{1,4}:){3,}|\b(?:[0-9a-f]{1,4}:)+:[0-9a-f]{1,4}\b"), "an IP address"),
    (re.compile(r"[\w.+-]+@[\w-]+"), "a mail address or a user at a host"),
    (re.compile(rf"(?i)\b[\w-]+(\.[\w-]+)*\.({_DOMAINS})\b"), "a host name"),
    (re.compile(r"\b(?:hf|sk|ghp|gho|glpat|xox[bp])[_-][A-Za-z0-9_-]{8,}|(?i:bearer )\S"), "a secret"),
)  # fmt: skip


def unfit(text: str) -> str:
    """Return what a text holds that must not be published, or nothing."""
    named = (match[1] for match in re.finditer(r"([A-Za-z][\w.-]*)\s*[=:]\s*\S", text))
    if any(is_secret(name) for name in named):
        return "it holds a secret"
    return next((f"it holds {what}" for pattern, what in _UNFIT if pattern.search(text)), "")
