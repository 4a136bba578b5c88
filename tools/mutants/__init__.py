"""Change one line of a module at a time, and see whether its unit tests notice (`make mutants`)."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("table.toml")
RESULTS = ROOT / "tools/mutants/scores.json"
PAGE = ROOT / "docs/results/mutants.md"


@dataclass(frozen=True)
class Target:
    """A module, the test files that hold it, and those of their tests that take too long."""

    file: str
    tests: tuple[str, ...]
    slow: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """The arguments of pytest."""
        return [*self.tests, *(f"--deselect={name}" for name in self.slow)]


@dataclass(frozen=True)
class Mutant:
    """One change of one line."""

    file: str
    number: int
    line: str
    becomes: str
    source: str = ""
    """The whole module with this change."""

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.line} -> {self.becomes or '(removed)'}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What an entry of the table names it by; line numbers change too often."""
        return self.file, self.line, self.becomes


@dataclass(frozen=True)
class Table:
    """The table of table.toml, which explains its keys."""

    least: float
    operators: frozenset[str]
    targets: tuple[Target, ...]
    skipped: dict[tuple[str, str], str]
    """Functions that only process tests can hold, and where they are held."""
    equivalent: dict[tuple[str, str, str], str]
    """Mutants that change nothing, and why."""
    excluded: tuple[re.Pattern[str], ...]
    """Lines whose mutants change nothing."""

    def counts(self, mutant: Mutant) -> bool:
        """Tell whether tests have to notice a mutant."""
        excluded = any(pattern.fullmatch(mutant.becomes) for pattern in self.excluded)
        return not excluded and mutant.key not in self.equivalent


@dataclass(frozen=True)
class Score:
    """The result for one module."""

    file: str
    mutants: int
    killed: int
    equivalent: int
    seconds: int
    survivors: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """The mutants that tests noticed, of those that change something."""
        return self.killed / self.mutants if self.mutants else 1.0


def read_table() -> Table:
    """Read table.toml."""
    data = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    targets = [
        Target(
            f"{room['folder']}/{module}.py",
            tuple(f"{room['tests']}/{name}.py" for name in tests),
            tuple(f"{room['tests']}/{name}" for name in room.get("slow", [])),
        )
        for room in data["room"]
        for module, tests in room["files"].items()
    ]
    return Table(
        data["least"],
        frozenset(data["operators"]),
        tuple(targets),
        {(entry["file"], entry["function"]): entry["why"] for entry in data.get("skipped", [])},
        {(entry["file"], entry["line"], entry["becomes"]): entry["why"] for entry in data.get("equivalent", [])},
        tuple(re.compile(entry["line"]) for entry in data["excluded"]),
    )
