"""Change one line of a module at a time, and see whether its unit tests notice (`make mutants`)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("table.toml")
RESULTS = ROOT / "qualification/results/mutants.json"
PAGE = ROOT / "docs/results/mutants.md"


@dataclass(frozen=True)
class Target:
    """A module and the test files that hold it; `lines` are parts that unit tests cannot reach, with the reason."""

    file: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Mutant:
    """One change of one line."""

    file: str
    number: int
    line: str
    becomes: str
    source: str = ""
    """The whole module with this change."""

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
    rooms = [
        (room["folder"], room["tests"], file, tests) for room in data["room"] for file, tests in room["files"].items()
    ]
    return Table(
        data["least"],
        frozenset(data["operators"]),
        tuple(
            Target(f"{folder}/{file}.py", tuple(f"{under}/{t}.py" for t in tests))
            for folder, under, file, tests in rooms
        ),
        {(entry["file"], entry["function"]): entry["why"] for entry in data.get("skipped", [])},
        {(entry["file"], entry["line"], entry["becomes"]): entry["why"] for entry in data.get("equivalent", [])},
    )
