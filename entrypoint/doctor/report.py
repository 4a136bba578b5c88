"""What the doctor found, all at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError, HostError
from ..problem import AnyCheck, Problem


@dataclass(frozen=True)
class Diagnosis:
    """A problem under the name that `--skip` takes; `of_host` tells this host's problems from those of the request."""

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
        """What a start would fail of."""
        return tuple(one for one in self.diagnoses if one.problem.fatal)

    @property
    def exit_status(self) -> int:
        """0 when nothing is fatal, 78 (EX_CONFIG) when the request or its checkpoint is, else 69 (EX_UNAVAILABLE)."""
        if not self.fatal:
            return 0
        return HostError.exit_status if all(one.of_host for one in self.fatal) else ConfigError.exit_status

    def to_json(self) -> dict[str, Any]:
        """Return `{"ok", "problems": [{"name", "of_host", "seen", "needed", "fix", "fatal"}], "not_looked_at"}`."""
        problems = [{"name": one.name, "of_host": one.of_host, **asdict(one.problem)} for one in self.diagnoses]
        return {"ok": not self.fatal, "problems": problems, "not_looked_at": list(self.not_checked)}


def report(diagnoses: Iterable[Diagnosis], not_checked: Iterable[str] = ()) -> DoctorReport:
    """Order problems, the fatal ones first, and keep the first of those that have the same name."""
    by_name: dict[str, Diagnosis] = {}
    for one in diagnoses:
        by_name.setdefault(one.name, one)
    return DoctorReport(tuple(sorted(by_name.values(), key=lambda one: not one.problem.fatal)), tuple(not_checked))


def diagnose(
    checks: Iterable[AnyCheck], skip: Collection[str], *facts: Any, of_host: bool = True
) -> Iterator[Diagnosis]:
    """Yield what these checks find in the facts."""
    for check in checks:
        if check.name not in skip and (problem := check(*facts)):
            yield Diagnosis(check.name, problem, of_host)
