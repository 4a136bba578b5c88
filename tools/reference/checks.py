"""The tables of checks.md: every check of the doctor, from the checks themselves."""

from __future__ import annotations

import re

from dsv4_serve.entrypoint.doctor.registry import GROUPS
from dsv4_serve.entrypoint.problem import AnyCheck
from tools.reference.markdown import code, linked, prose, table
from tools.reference.refusals import READING, RULES, SCOPE_FAILURES

HEAD = ("name", "what it looks for", "symptom without it", "remedy", "tried")
# Heads a GPU that kernels do not have; tensors named by another quantizer (GPTQ, AutoRound) in place of the layout's.
ALSO = {"tensor-parallel-size": (58,), "target-model-complete": (6,)}


def tables() -> dict[str, str]:
    """Return a table for each group of checks."""
    parts = []
    for title, checks in GROUPS.items():
        rows = (
            (code(check.name), prose(check.looks_for), linked(check.symptom, check.link), remedy(check), check.tried)
            for check in checks
        )
        parts.append(f"### {title}\n\n{table(HEAD, rows)}")
    return {"checks": "\n" + "\n".join(parts) + "\n"}


def remedy(check: AnyCheck) -> str:
    """Return every fix that a check gives, with … for what is filled in."""
    return prose("; or ".join(re.sub(r"\{.*?\}", "…", fix) for fix in check.remedies))


def covered() -> dict[int, set[str]]:
    """Return what is caught before start: the names of checks and refusals by the number of a known failure."""
    names: dict[int, set[str]] = {}
    checks = [(check.name, check.failures) for checks in GROUPS.values() for check in checks]
    refused = [(name, refusal.failures) for name, refusal in (RULES | READING).items()] + list(SCOPE_FAILURES.items())
    for name, numbers in [*checks, *refused, *ALSO.items()]:
        for number in numbers:
            names.setdefault(number, set()).add(name)
    return names
