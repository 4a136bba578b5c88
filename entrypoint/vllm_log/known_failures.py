"""Known failures: what they look like in vLLM's log, and what to do. The data is failures.toml and missing.toml."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import toml_file
from .situation import Situation

FILE = Path(__file__).with_name("failures.toml")
MISSING = Path(__file__).with_name("missing.toml")
REPORT = "Report it: `dsv4 bundle --support` packs the log, the plan and the versions."
_NAME = r"['\"]?(?P<name>[\w./+-]+?)['\"]?"
_MISSING = tuple(
    re.compile(pattern)
    for pattern in (
        rf"fatal error: {_NAME}: No such file",
        rf"cannot open source file {_NAME}(?=\s|$|\))",
        r"['\"](?P<name>[\w./+-]+)['\"] file not found",
        r"cannot find (?P<name>-l\w+)",
        r"\b(?P<name>nvcc|ninja|gcc|g\+\+|c\+\+|cc|ptxas)\b['\"]?: (command )?not found",
        r"No such file or directory: '(?P<name>\w[\w+]*)'",
        r"Could not find (?P<name>nvcc)",
        r"Failed to find C (?P<name>compiler)",
        r"cannot execute '(?P<name>cc1\w*)'",
        r"(?P<name>lib[\w+-]+)\.so[\d.]*: cannot open shared object",
    )
)


@dataclass(frozen=True)
class Remedy:
    """Remedy for one situation: `given` are settings that the plan has, `sets` what it advises."""

    text: str
    given: Mapping[str, Any] = field(default_factory=dict)
    sets: Mapping[str, Any] = field(default_factory=dict)
    nvlink: bool | None = None
    serving: bool | None = None

    def suits(self, situation: Situation) -> bool:
        """Tell whether it holds there: what is set already is not advised."""
        return (
            situation.has(self.given)
            and not (self.sets and situation.has(self.sets))
            and self.nvlink in (None, situation.nvlink)
            and self.serving in (None, situation.serving)
        )


@dataclass(frozen=True)
class KnownFailure:
    """One known failure; the fields are described at the head of failures.toml."""

    name: str
    pattern: re.Pattern[str]
    cause: str
    remedy: str
    link: str = ""
    sets: Mapping[str, Any] = field(default_factory=dict)
    cases: tuple[Remedy, ...] = ()

    def advice(self, situation: Situation, root: str = "") -> str:
        """Return what to do in a situation, and the link where there is one."""
        cases = (*self.cases, Remedy(self.remedy, sets=self.sets), Remedy("{report}"))
        text = next(case.text for case in cases if case.suits(situation))
        names_gpu_errors = "{xid}" in text
        filled = {"missing": missing(root), "xid": situation.gpu_errors(), "processes": situation.processes()}
        text = text.format(port=situation.port, report=REPORT, **filled)
        text = f"{text} See {self.link}." if self.link and text != REPORT else text
        return of_gpu_errors(situation, text, named=names_gpu_errors)


def of_gpu_errors(situation: Situation, advice: str, *, named: bool = False) -> str:
    """Add to advice what the driver reported of the GPUs, unless it `named` that, and what to do about it."""
    if not situation.xids:
        return advice
    clause = situation.gpu_errors()
    remedy = situation.xids[0].remedy.format(report=REPORT)
    errors = remedy if named else f"{clause[0].upper()}{clause[1:]}. {remedy}"
    return " ".join([*advice.replace(REPORT, "").split(), errors])


@functools.cache
def known() -> tuple[KnownFailure, ...]:
    """Return every known failure, in the order in which they are tried."""
    return tuple(
        KnownFailure(
            name,
            re.compile(entry.pop("pattern")),
            cases=tuple(Remedy(**case) for case in entry.pop("case", [])),
            **entry,
        )
        for name, entry in toml_file.read(FILE).items()
    )


def find(line: str, *causes: str) -> KnownFailure | None:
    """Return the first known failure whose pattern is in this line, among those with these causes if any are named."""
    return next((f for f in known() if (not causes or f.cause in causes) and f.pattern.search(line)), None)


def too_few_processes() -> KnownFailure:
    """Return the one of a limit of processes, which has many messages."""
    return next(failure for failure in known() if failure.name == "too-few-processes")


def missing(line: str) -> str:
    """Return what a compiler did not find, and how to get it; a general answer where it is not known."""
    name = next((match["name"] for pattern in _MISSING if (match := pattern.search(line))), "")
    for entry in toml_file.read(MISSING).values():
        if name and re.fullmatch(entry["pattern"], name):
            ways = [f"on Debian `apt install {entry['debian']}`"] if "debian" in entry else []
            ways += [f"with wheels `pip install {entry['wheel']}`"] if "wheel" in entry else []
            return f"{entry.get('called', name)} is missing: {'; '.join(ways)}; the image has it."
    what = f"{name} is missing" if name else "a header, library or program is missing"
    return f"{what}, and no package of it is known here: use the image, whose compilers are complete."
