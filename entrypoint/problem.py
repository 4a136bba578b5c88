"""Problems, and the checks that find them; each check carries its own documentation."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Generic, Literal, ParamSpec, TypeAlias

P = ParamSpec("P")
Tried = Literal["for real", "recorded", "constructed"]


@dataclass(frozen=True)
class Problem:
    """What was seen, what is needed, and the one change that fixes it: three short clauses without a full stop."""

    seen: str
    needed: str
    fix: str = ""
    """If empty, the first of the check's remedies."""
    fatal: bool = True
    """False where a start may still work: the problem is logged, and the start continues."""


@dataclass(frozen=True)
class Check(Generic[P]):
    """A small function of facts that returns a problem or None, and its documentation."""

    name: str
    """The name that `--skip` takes."""
    looks_for: str
    symptom: str
    """What users see without this check."""
    link: str
    remedies: tuple[str, ...]
    """Every fix that the check gives, with `{…}` as placeholders."""
    failures: tuple[int, ...]
    """Numbers in the list of known failures."""
    tried: Tried
    """How the check was tried: a fault made for real, a recording of a real host, or constructed facts."""
    find: Callable[P, Problem | None]

    def __call__(self, *facts: P.args, **named: P.kwargs) -> Problem | None:
        """Return the problem with its fix, or None."""
        problem = self.find(*facts, **named)
        if problem is None or problem.fix:
            return problem
        return dataclasses.replace(problem, fix=self.remedies[0])


def check(
    *, symptom: str, link: str, remedy: str | tuple[str, ...], failures: tuple[int, ...] = (), tried: Tried
) -> Callable[[Callable[P, Problem | None]], Check[P]]:
    """Turn a function into a check, with the function's name; its docstring describes what the check looks for."""
    remedies = (remedy,) if isinstance(remedy, str) else remedy

    def documented(find: Callable[P, Problem | None]) -> Check[P]:
        name = find.__name__.replace("_", "-")
        return Check(name, inspect.getdoc(find) or "", symptom, link, remedies, failures, tried, find)

    return documented


AnyCheck: TypeAlias = Check[...]


def checks_in(*modules: ModuleType) -> tuple[AnyCheck, ...]:
    """Return the checks that are defined in these modules, in the order of their definitions."""
    return tuple(
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Check) and value.find.__module__ == module.__name__
    )
