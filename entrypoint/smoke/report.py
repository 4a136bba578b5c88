"""What a smoke test found, as text, JSON and JUnit XML. Pure: returns strings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

from ..text_table import table
from .outcome import VERDICTS, Outcome, Verdict


@dataclass(frozen=True)
class SmokeReport:
    """Every outcome, what was asked, what could not be known of it (`unknown`, empty where all was), and its plan."""

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
            "checks": [{**asdict(one), "seconds": round(one.seconds, 3)} for one in self.outcomes],
        }

    def text(self) -> str:
        """Return one row a check, the remedy beneath what failed, and the verdict last."""
        rows = [("check", "verdict", "s", "seen")]
        rows += [(one.name, one.verdict, f"{one.seconds:.1f}", one.seen) for one in self.outcomes]
        lines = table(rows).splitlines()
        printed = [lines[0]]
        for line, one in zip(lines[1:], self.outcomes, strict=True):
            printed += [line, *([f"    fix: {one.fix}"] if one.fix else [])]
        printed += ["", f"not known: {self.unknown}"] if self.unknown else [""]
        counts = ", ".join(f"{len(self._named(of))} {of}" for of in VERDICTS if self._named(of))
        seconds = sum(one.seconds for one in self.outcomes)
        return "\n".join([*printed, f"{self.model} at {self.url}: {counts} in {seconds:.0f} s"])

    def junit(self) -> str:
        """Return a JUnit XML document with one suite."""
        counts = {"failures": str(len(self._named("failed"))), "skipped": str(len(self._named("skipped")))}
        total = f"{sum(one.seconds for one in self.outcomes):.3f}"
        names = {"name": "dsv4 smoke", "tests": str(len(self.outcomes)), "errors": "0", "time": total, **counts}
        root = ET.Element("testsuites", names)
        suite = ET.SubElement(root, "testsuite", {**names, "hostname": self.url})
        for one in self.outcomes:
            _case(suite, self.model, one)
        ET.indent(root)
        return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"

    def _named(self, verdict: Verdict) -> list[Outcome]:
        return [one for one in self.outcomes if one.verdict == verdict]


def _case(suite: ET.Element, model: str, one: Outcome) -> None:
    case = ET.SubElement(
        suite, "testcase", {"classname": f"smoke.{model}", "name": one.name, "time": f"{one.seconds:.3f}"}
    )
    if one.verdict == "failed":
        ET.SubElement(case, "failure", {"message": _xml(one.seen)}).text = _xml(one.fix)
    elif one.verdict == "skipped":
        ET.SubElement(case, "skipped", {"message": _xml(one.seen)})
    else:
        ET.SubElement(case, "system-out").text = _xml(f"{one.seen}\n{json.dumps(one.figures)}")


def _xml(text: str) -> str:
    """Return text without the control characters that XML 1.0 cannot hold."""
    return "".join(char for char in text if char >= " " or char in "\t\n")
