"""What the doctor found, all at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError, HostError
from ..problem import Check, Problem, name_of


@dataclass(frozen=True)
class Found:
    """A problem under the name that `--skip` takes; `of_host` tells this host's problems from those of the request."""

    name: str
    problem: Problem
    of_host: bool

    def sentence(self) -> str:
        """Say it in one line."""
        needed = f"; needed: {self.problem.needed}" if self.problem.needed else ""
        return f"{self.name}: {self.problem.seen}{needed}; {self.problem.fix}"


@dataclass(frozen=True)
class Report:
    """Every problem, the fatal ones first, and what was not looked at, with the reason."""

    found: tuple[Found, ...]
    unseen: tuple[str, ...] = ()

    @property
    def fatal(self) -> tuple[Found, ...]:
        """What a start would fail of."""
        return tuple(one for one in self.found if one.problem.fatal)

    @property
    def exit_status(self) -> int:
        """0 when nothing is fatal, 78 (EX_CONFIG) when the request or its checkpoint is, else 69 (EX_UNAVAILABLE)."""
        if not self.fatal:
            return 0
        return HostError.exit_status if all(one.of_host for one in self.fatal) else ConfigError.exit_status

    def to_json(self) -> dict[str, Any]:
        """Return `{"ok", "problems": [{"name", "of_host", "seen", "needed", "fix", "fatal"}], "not_looked_at"}`."""
        problems = [{"name": one.name, "of_host": one.of_host, **asdict(one.problem)} for one in self.found]
        return {"ok": not self.fatal, "problems": problems, "not_looked_at": list(self.unseen)}


def report(found: Collection[Found], unseen: Collection[str]) -> Report:
    """Order problems, the fatal ones first, and keep the first of those that have the same name."""
    first: dict[str, Found] = {}
    for one in found:
        first.setdefault(one.name, one)
    return Report(tuple(sorted(first.values(), key=lambda one: not one.problem.fatal)), tuple(unseen))


def ask(checks: tuple[Check, ...], skip: Collection[str], *facts: Any, of_host: bool = True) -> Iterator[Found]:
    """Yield what these checks find in the facts."""
    for check in checks:
        if name_of(check) not in skip and (problem := check(*facts)):
            yield Found(name_of(check), problem, of_host)
