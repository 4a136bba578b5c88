"""The outcome of one check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["passed", "failed", "inconclusive", "skipped"]
VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "inconclusive", "skipped")


@dataclass(frozen=True)
class Outcome:
    """
    One check's verdict: what was seen (or why it was skipped), and what to change where it failed.

    `seconds` is wall time. `figures` are the measured values, by name with unit.
    """

    verdict: Verdict
    seen: str
    fix: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    seconds: float = 0.0


def passed(seen: str, **figures: Any) -> Outcome:
    """Return the outcome of a check that passed."""
    return Outcome("passed", seen, figures=figures)


def failed(seen: str, fix: str, **figures: Any) -> Outcome:
    """Return the outcome of a check that failed."""
    return Outcome("failed", seen, fix, figures)


def inconclusive(seen: str, fix: str = "") -> Outcome:
    """Return the outcome of a check that the model's answer did not reach: nothing is wrong, and nothing was shown."""
    return Outcome("inconclusive", seen, fix)


def skipped(reason: str) -> Outcome:
    """Return the outcome of a check that cannot be run here."""
    return Outcome("skipped", reason)


def quoted(text: str, most: int = 60) -> str:
    """Return the beginning of an answer, fit for one line of a report."""
    return ascii(text if len(text) <= most else text[:most] + "...")
