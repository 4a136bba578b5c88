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
_MISSING = (
    re.compile(r"fatal error: ['\"]?(?P<file>[\w./+-]+?)['\"]?: No such file|cannot open source file [\"'](?P<source>[\w./+-]+)[\"']"),
    re.compile(r"['\"](?P<file>[\w./+-]+)['\"] file not found|file not found: ['\"]?(?P<source>[\w./+-]+)"),
    re.compile(r"cannot find -l(?P<library>\w+)"),
    re.compile(r"\b(?P<program>nvcc|ninja|gcc|g\+\+|c\+\+|cc|ptxas)\b['\"]?: (?:command )?not found|No such file or directory: '(?P<tool>\w[\w+]*)'"),
)


@dataclass(frozen=True)
class Case:
    """Advice for one situation: `given` are settings that the plan has, `sets` what it advises."""

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
    cases: tuple[Case, ...] = ()

    def advice(self, situation: Situation, root: str = "") -> str:
        """Return what to do in a situation, and the link where there is one."""
        cases = (*self.cases, Case(self.remedy, sets=self.sets), Case("{report}"))
        text = next(case.text for case in cases if case.suits(situation))
        text = text.format(port=situation.port, report=REPORT, missing=missing(root))
        return f"{text} ({self.link})" if self.link and text != REPORT else text


@functools.cache
def known() -> tuple[KnownFailure, ...]:
    """Return every known failure, in the order in which they are tried."""
    return tuple(
        KnownFailure(
            name,
            re.compile(entry.pop("pattern")),
            cases=tuple(Case(**case) for case in entry.pop("case", [])),
            **entry,
        )
        for name, entry in toml_file.read(FILE).items()
    )


def find(line: str, *causes: str) -> KnownFailure | None:
    """Return the first known failure whose pattern is in this line, among those with these causes if any are named."""
    return next((f for f in known() if (not causes or f.cause in causes) and f.pattern.search(line)), None)


def missing(line: str) -> str:
    """Return what a compiler did not find, and how to get it; a general answer where it is not known."""
    name = next((text for p in _MISSING if (m := p.search(line)) for text in m.groups() if text), "")
    key = f"-l{name}" if "cannot find -l" in line else name
    for entry in toml_file.read(MISSING).values():
        if name and re.fullmatch(entry["pattern"], key):
            ways = [f"on Debian `apt install {entry['debian']}`"] if "debian" in entry else []
            ways += [f"with wheels `pip install {entry['wheel']}`"] if "wheel" in entry else []
            return f"{key} is missing: {'; '.join(ways)}; the image has it."
    return (
        f"{key or 'A header or library'} is missing, and no package of it is known here: use the image, whose compilers are complete."
    )
