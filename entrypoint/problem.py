"""A problem that a check found, and what is told about each check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast


@dataclass(frozen=True)
class Problem:
    """What was seen, what is needed, and the one change that fixes it: three short clauses without a full stop."""

    seen: str
    needed: str
    fix: str
    fatal: bool = True
    """False where a start may still work: it is said, and the start goes on."""


@dataclass(frozen=True)
class Wild:
    """How users meet this: the symptom, a link, numbers in the list of known failures, and how the check was tried."""

    symptom: str
    link: str
    failures: tuple[int, ...] = ()
    tried: str = "constructed"
    """`for real` (the fault was made), `recorded` (from a recording of a real host) or `constructed`."""


class Check(Protocol):
    """A small function of facts that answers with nothing or a Problem."""

    __name__: str
    wild: Wild

    def __call__(self, *facts: Any) -> Problem | None:
        """Return the problem, or None."""
        ...


def check(wild: Wild) -> Callable[[Callable[..., Problem | None]], Check]:
    """Attach what is known about a check to its function; its name is the function's, with hyphens."""

    def attach(function: Callable[..., Problem | None]) -> Check:
        function.wild = wild  # type: ignore[attr-defined]
        return cast("Check", function)

    return attach


def name_of(function: Check) -> str:
    """Return the name of a check, as `--skip` takes it."""
    return function.__name__.replace("_", "-")
