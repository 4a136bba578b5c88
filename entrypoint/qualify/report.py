"""The verdict of a run, as text, JSON and a result file. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..smoke.outcome import Outcome
from ..smoke.report import counts, lines
from .run import STAGES

SCHEMA = 1
"""Of the result file."""
PROOF = "known-answers"
"""Without this stage nothing is known of vLLM itself."""


@dataclass(frozen=True)
class QualifyReport:
    """Every outcome, what was tried on what (`replica`), and the digest of both."""

    outcomes: Sequence[Outcome]
    replica: Mapping[str, Any]
    digest: str
    minutes: float

    @property
    def ok(self) -> bool:
        """Whether something passed, and nothing failed or remained open."""
        verdicts = {outcome.name: outcome.verdict for outcome in self.outcomes}
        open_or_wrong = {"failed", "inconclusive"} & {*verdicts.values()}
        return not open_or_wrong and "passed" in verdicts.values() and verdicts.get(PROOF, "passed") == "passed"

    @property
    def subject(self) -> str:
        """Model, hardware, shape and profile."""
        choices = self.replica["choices"]
        return "-".join(str(choices[name]) for name in ("model-name", "hardware", "profile") if name in choices)

    def verdict(self) -> str:
        """Return one sentence."""
        failed = [outcome.name for outcome in self.outcomes if outcome.verdict == "failed"]
        if failed:
            return f"not qualified: {', '.join(failed)} failed"
        if self.ok:
            every = {outcome.name for outcome in self.outcomes} >= {*STAGES}
            return "qualified" if every else "the stages of --only passed"
        left = [outcome.name for outcome in self.outcomes if outcome.verdict == "inconclusive"]
        if left:
            return f"not finished: {', '.join(left)}; the same command goes on with these"
        missing = [outcome.name for outcome in self.outcomes if outcome.verdict == "skipped"]
        return f"nothing was shown: the reason is above ({', '.join(missing)})"

    def to_json(self) -> dict[str, Any]:
        """Return the body of the result file, without its kind and date."""
        return {
            "schema": SCHEMA,
            "subject": self.subject,
            "ok": self.ok,
            "verdict": self.verdict(),
            "digest": self.digest,
            "minutes": self.minutes,
            "checks": [{**asdict(outcome), "seconds": round(outcome.seconds, 1)} for outcome in self.outcomes],
            "replica": dict(self.replica),
        }

    def text(self) -> str:
        """Return one row for each stage, and the verdict last."""
        verdict = f"{self.subject}: {self.verdict()} ({counts(self.outcomes)})"
        return "\n".join([*lines(self.outcomes, "stage"), "", verdict])
