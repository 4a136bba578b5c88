"""The tables of failures.md: failures that are recognized in vLLM's log, what a compiler lacks, errors of GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsv4_serve.entrypoint import toml_file
from dsv4_serve.entrypoint.vllm_log import exit_cause, known_failures, xid
from dsv4_serve.entrypoint.vllm_log.known_failures import KnownFailure, Remedy
from dsv4_serve.entrypoint.vllm_log.situation import Situation
from tests.entrypoint.vllm_log.cases import CASES
from tools.reference.markdown import code, prose, table

_PLAIN = r"([^*?\[]+)"
_WORDS = (
    (_PLAIN, "is `{}`"),
    (rf"{_PLAIN}\*", "begins with `{}`"),
    (rf"\*{_PLAIN}\*", "contains `{}`"),
    (r"\[(\w)(\w)\]", "is `{}` or `{}`"),
    (r"\[(\w)-(\w)\]", "is from `{}` to `{}`"),
)
"""Kinds of globs, and what they say."""


def tables() -> dict[str, str]:
    """Return every known failure with its statuses, advice and tests; and the packages of what a compiler lacks."""
    rows = (
        (code(failure.name), _statuses(failure), code(failure.pattern.pattern), _advice(failure), _tests(failure))
        for failure in known_failures.known()
    )
    head = ("name", "exit status", "what the log says, as a regular expression", "advice", "logs that test it")
    missing = (
        (code(entry["pattern"]), code(entry["debian"]) if "debian" in entry else "", _wheel(entry.get("wheel", "")))
        for entry in toml_file.read(known_failures.MISSING).values()
    )
    packages = table(("header, library or program, as a regular expression", "package on Debian", "wheel"), missing)
    errors = (
        (
            f"{number}",
            entry["kind"],
            entry["what"],
            "yes" if xid.Xid(number, "").serves else "no",
            _filled(entry["remedy"]),
        )
        for number, entry in xid.known().items()
    )
    xids = table(("Xid", "of", "what happened", "stays ready", "advice"), errors)
    return {"failures": table(head, rows), "packages": packages, "xids": xids}


def _statuses(failure: KnownFailure) -> str:
    start, serving = (exit_cause.of_known(failure, was_ready=ready).exit_status for ready in (False, True))
    return f"{start:d}" if start == serving else f"{start:d}; {serving:d} while serving"


def _advice(failure: KnownFailure) -> str:
    texts = [*(f"{_when(case)}: {case.text}" for case in failure.cases), failure.remedy]
    return "<br>".join(map(_filled, texts))


def _filled(text: str) -> str:
    missing, nothing = "what is missing, and its packages", Situation()
    filled = {"missing": missing, "xid": nothing.gpu_errors(), "processes": nothing.processes()}
    return prose(text.format(port="PORT", report=known_failures.REPORT, **filled))


def _when(case: Remedy) -> str:
    text = ", ".join(_conditions(case))
    return text[:1].upper() + text[1:]


def _conditions(case: Remedy) -> Iterator[str]:
    if case.given:
        yield "if " + " and ".join(setting(name, str(value)) for name, value in case.given.items())
    if case.nvlink is not None:
        yield "with NVLink" if case.nvlink else "without NVLink"
    if case.serving is not None:
        yield "while serving" if case.serving else "during the start"


def setting(name: str, glob: str) -> str:
    """Return in words that a setting matches a glob; raise ValueError for a kind of glob that has no words yet."""
    for pattern, words in _WORDS:
        if found := re.fullmatch(pattern, glob):
            return f"`{name}` {words.format(*found.groups())}"
    raise ValueError(f"{name}: no words for the glob {glob!r}")


def _tests(failure: KnownFailure) -> str:
    return code(*(case.name for case in CASES if case.failure == failure.name))


def _wheel(name: str) -> str:
    return code(name) if name else ""
