"""Format the outcomes of a smoke test as text, JSON and JUnit XML. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

from ..junit import xml_text
from ..text_table import table
from .outcome import VERDICTS, Outcome, Verdict


@dataclass(frozen=True)
class SmokeReport:
    """Every outcome, the replica and its plan, and why parts of it are `unknown` (empty if none are)."""

    url: str
    model: str
    outcomes: Sequence[Outcome]
    unknown: str = ""
    replica: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing failed, and something passed."""
        return not self._named("failed") and bool(self._named("passed"))

    def to_json(self) -> dict[str, Any]:
        """Return `{"ok", "url", "model", "unknown", "checks": [{"name", "verdict", "seen", "fix", …}]}`."""
        return {
            "ok": self.ok,
            "url": self.url,
            "model": self.model,
            "unknown": self.unknown,
            "checks": [{**asdict(outcome), "seconds": round(outcome.seconds, 3)} for outcome in self.outcomes],
        }

    def text(self) -> str:
        """Return one row for each check, with the remedy below a failed one, and the verdict last."""
        printed = lines(self.outcomes, "check")
        printed += ["", f"unknown: {self.unknown}"] if self.unknown else [""]
        return "\n".join([*printed, f"{self.model} at {self.url}: {counts(self.outcomes)}"])

    def junit(self) -> str:
        """Return a JUnit XML document with one suite."""
        skipped = len(self._named("skipped")) + len(self._named("inconclusive"))
        numbers = {"failures": str(len(self._named("failed"))), "skipped": str(skipped)}
        total = f"{sum(outcome.seconds for outcome in self.outcomes):.3f}"
        names = {"name": "dsv4 smoke", "tests": str(len(self.outcomes)), "errors": "0", "time": total, **numbers}
        root = ET.Element("testsuites", names)
        suite = ET.SubElement(root, "testsuite", {**names, "hostname": self.url})
        for outcome in self.outcomes:
            _case(suite, self.model, outcome)
        ET.indent(root)
        return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"

    def _named(self, verdict: Verdict) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.verdict == verdict]


def lines(outcomes: Sequence[Outcome], what: str) -> list[str]:
    """Return a heading and one row for each outcome, with the remedy below a failed one."""
    rows = [(what, "verdict", "s", "seen")]
    rows += [(outcome.name, outcome.verdict, f"{outcome.seconds:.1f}", outcome.seen) for outcome in outcomes]
    heading, *rest = table(rows).splitlines()
    printed = [heading]
    for line, outcome in zip(rest, outcomes, strict=True):
        printed += [line, *([f"    fix: {outcome.fix}"] if outcome.fix else [])]
    return printed


def counts(outcomes: Sequence[Outcome]) -> str:
    """Return how many outcomes have each verdict, and their seconds together."""
    numbers = Counter(outcome.verdict for outcome in outcomes)
    named = ", ".join(f"{numbers[of]} {of}" for of in VERDICTS if numbers[of])
    return f"{named} in {sum(outcome.seconds for outcome in outcomes):.0f} s"


def _case(suite: ET.Element, model: str, outcome: Outcome) -> None:
    case = ET.SubElement(
        suite, "testcase", {"classname": f"smoke.{model}", "name": outcome.name, "time": f"{outcome.seconds:.3f}"}
    )
    if outcome.verdict == "failed":
        ET.SubElement(case, "failure", {"message": xml_text(outcome.seen)}).text = xml_text(outcome.fix)
    elif outcome.verdict in ("skipped", "inconclusive"):
        ET.SubElement(case, "skipped", {"message": xml_text(outcome.seen), "type": outcome.verdict})
    else:
        ET.SubElement(case, "system-out").text = xml_text(f"{outcome.seen}\n{json.dumps(outcome.figures)}")
