"""The result of a canary: for its file, in a sentence, and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..text_table import table
from .judge import CanaryLimits
from .reading import Tally
from .run import RolloutOutcome, StepOutcome


def body(
    outcome: RolloutOutcome, limits: CanaryLimits, names: Mapping[str, list[str]], replica: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the file holds; `replica` describes a candidate."""
    return {
        "subject": "canary",
        "verdict": sentence(outcome),
        "ok": outcome.promoted,
        "share": outcome.share,
        "limits": dataclasses.asdict(limits),
        **names,
        "steps": [_step(step) for step in outcome.steps],
        "replica": dict(replica),
    }


def sentence(outcome: RolloutOutcome) -> str:
    """Return the verdict in a sentence."""
    if outcome.promoted:
        return f"Promoted: {outcome.share} % of requests go to the candidates; every rule held in {_steps(outcome)}."
    at = f" at {outcome.steps[-1].share} %" if outcome.steps else ""
    if outcome.stopped:
        why = "it was stopped"
    else:
        found = [one for one in outcome.steps[-1].findings if one.state != "good"] if outcome.steps else []
        bad = [one for one in found if one.state == "bad"]
        shown = [one for one in bad if one.certain] or bad or found
        why = ("" if bad else "not enough evidence: ") + "; ".join(one.text for one in shown)
    rest = ""
    if outcome.not_reset:
        rest = f" A balancer could not be told ({outcome.not_reset.rstrip('.')}); its share ends within 60 s."
    return f"Rolled back{at}: {why}.{rest}"


def text(result: Mapping[str, Any]) -> str:
    """Return each step with its findings, and the verdict."""
    rows: list[tuple[str, ...]] = [("share", "rule", "", "finding")]
    for step in result["steps"]:
        rows += [(f"{step['share']} %", one["rule"], one["state"], one["text"]) for one in step["findings"]]
    return "\n".join([table(rows), "", result["verdict"], *([f"result: {result['file']}"] if "file" in result else [])])


def _steps(outcome: RolloutOutcome) -> str:
    number = len(outcome.steps)
    return f"{number} step{'' if number == 1 else 's'}"


def _step(step: StepOutcome) -> dict[str, Any]:
    findings = [{"rule": one.rule, "state": one.state, "text": one.text} for one in step.findings]
    sides = {"candidates": _tally(step.new), "stable": _tally(step.stable)}
    return {"share": step.share, "seconds": round(step.seconds, 1), "findings": findings, **sides}


def _tally(side: Tally) -> dict[str, Any]:
    return {
        "replicas": side.replicas,
        "requests": side.requests,
        "failed": side.failed,
        "drafts": side.drafts,
        "accepted_at": list(side.accepted_at),
        "ttft": {str(bound): count for bound, count in sorted((side.ttft or {}).items())},
    }
