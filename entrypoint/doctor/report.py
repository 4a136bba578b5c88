"""The report of the doctor: all problems at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError, HostError
from ..problem import AnyCheck, Problem


@dataclass(frozen=True)
class Diagnosis:
    """A problem under the name that `--skip` takes; `of_host` is False for problems of the request."""

    name: str
    problem: Problem
    of_host: bool

    def sentence(self) -> str:
        """Return it in one line."""
        needed = f"; needed: {self.problem.needed}" if self.problem.needed else ""
        return f"{self.name}: {self.problem.seen}{needed}; {self.problem.fix}"


@dataclass(frozen=True)
class DoctorReport:
    """Every problem, the fatal ones first, and what was not checked, with the reason."""

    diagnoses: tuple[Diagnosis, ...]
    not_checked: tuple[str, ...] = ()

    @property
    def fatal(self) -> tuple[Diagnosis, ...]:
        """The problems that would prevent a start."""
        return tuple(diagnosis for diagnosis in self.diagnoses if diagnosis.problem.fatal)

    @property
    def exit_status(self) -> int:
        """0 when nothing is fatal, 78 (EX_CONFIG) when the request or its checkpoint is, else 69 (EX_UNAVAILABLE)."""
        if not self.fatal:
            return 0
        return HostError.exit_status if all(diagnosis.of_host for diagnosis in self.fatal) else ConfigError.exit_status

    def to_json(self) -> dict[str, Any]:
        """Return `{"ok", "problems": [{"name", "of_host", "seen", "needed", "fix", "fatal"}], "not_checked"}`."""
        problems = [{"name": d.name, "of_host": d.of_host, **asdict(d.problem)} for d in self.diagnoses]
        return {"ok": not self.fatal, "problems": problems, "not_checked": list(self.not_checked)}


def report(diagnoses: Iterable[Diagnosis], not_checked: Iterable[str] = ()) -> DoctorReport:
    """Order problems, the fatal ones first, and keep the first of those that have the same name."""
    by_name: dict[str, Diagnosis] = {}
    for diagnosis in diagnoses:
        by_name.setdefault(diagnosis.name, diagnosis)
    ordered = sorted(by_name.values(), key=lambda diagnosis: not diagnosis.problem.fatal)
    return DoctorReport(tuple(ordered), tuple(not_checked))


def diagnose(
    checks: Iterable[AnyCheck], skip: Collection[str], *facts: Any, of_host: bool = True
) -> Iterator[Diagnosis]:
    """Yield what these checks find in the facts."""
    for check in checks:
        if check.name not in skip and (problem := check(*facts)):
            yield Diagnosis(check.name, problem, of_host)
