"""Format the result of `dsv4 eval tools` as text, and as JUnit XML. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from ..text_table import table
from .text import share

SHOWN = 10
"""Wrong rounds in the text; all are in the result."""


def text(result: Mapping[str, Any]) -> str:
    """Return both scores with their intervals, the table by kind, and what was wrong."""
    drafts = "drafts unknown" if result["drafts"] is None else f"{result['drafts']} draft tokens"
    rounds = result["sampling"]["rounds"]
    model = result["model"] or "an unknown model"
    lines = [f"tools, {result['thinking']}, {model}, {drafts}: {result['total']} in {rounds} round{'s' * (rounds > 1)}"]
    lines += [f"  {score['metric']:10}{share(score)}" for score in result["scores"]]
    rows = [("kind", "protocol", "task", "of")]
    rows += [(kind, of["protocol"], of["task"], of["total"]) for kind, of in result["by-kind"].items()]
    lines += [f"  {line}" for line in table([tuple(map(str, row)) for row in rows]).splitlines()]
    for wrong in result["wrong"][:SHOWN]:
        how = "streamed" if wrong["streamed"] else "not streamed"
        lines.append(f"  {wrong['scenario']}, {how}: {_what(wrong)}")
    if more := len(result["wrong"]) - SHOWN:
        lines += [f"  and {more} more in the result"] if more > 0 else []
    lines.append(f"  cut at {result['sampling']['max_tokens']} tokens: {result['cut']}")
    lines += [f"  samples: {result['samples']}", f"  result: {result['file']}"]
    faults = protocol_faults(result)
    return "\n".join([*lines, f"protocol faults: {faults}" if faults else "no protocol fault"])


def protocol_faults(result: Mapping[str, Any]) -> int:
    """Return the number of rounds with a fault of the protocol."""
    score = result["scores"][0]
    return int(score["total"] - score["correct"])


def junit(result: Mapping[str, Any], scenarios: Mapping[str, str]) -> str:
    """Return JUnit XML with one case for each scenario (name to kind); a fault of the protocol is an error."""
    wrong: dict[str, list[Mapping[str, Any]]] = {}
    for one in result["wrong"]:
        wrong.setdefault(one["scenario"], []).append(one)
    errors = sum(any(one["protocol"] for one in ones) for ones in wrong.values())
    counts = {"tests": str(len(scenarios)), "errors": str(errors), "failures": str(len(wrong) - errors), "skipped": "0"}
    root = ET.Element("testsuites", {"name": "dsv4 eval tools", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": result["subject"], **counts})
    for name, kind in scenarios.items():
        case = ET.SubElement(suite, "testcase", {"classname": f"tools.{kind}", "name": name})
        if ones := wrong.get(name):
            sort = "error" if any(one["protocol"] for one in ones) else "failure"
            message = "; ".join(f"round {one['round']}: {_what(one)}" for one in ones)
            ET.SubElement(case, sort, {"message": "".join(char for char in message if char >= " ")})
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _what(wrong: Mapping[str, Any]) -> str:
    return f"protocol: {wrong['protocol']}" if wrong["protocol"] else f"task: {wrong['task']}"
