"""Running checks in tests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from dsv4_serve.entrypoint.problem import AnyCheck, Problem


def problems(checks: Iterable[AnyCheck], *facts: Any) -> dict[str, Problem]:
    """Every problem by its check's name; each fix has to be one that the check declares."""
    found = {check: problem for check in checks if (problem := check(*facts))}
    for check, problem in found.items():
        assert any(_matches(remedy, problem.fix) for remedy in check.remedies), (check.name, problem.fix)
    return {check.name: problem for check, problem in found.items()}


def _matches(remedy: str, fix: str) -> bool:
    """Tell whether a fix is a remedy with its places filled in."""
    parts = re.split(r"\{[^}]*\}", remedy)
    return re.fullmatch(".+".join(map(re.escape, parts)), fix) is not None
