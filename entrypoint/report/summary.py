"""What the newest results say: one sentence, and one row for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evals import evaluate
from ..evals.text import share
from .parts import Level, Table, Verdict

Result = Mapping[str, Any]
QUALITY: Mapping[str, Level] = {"same": "good", "better": "good", "worse": "bad"}
_NAMES = {
    "qualify": "qualification",
    "smoke": "smoke test",
    "eval": "quality",
    "bench": "speed",
    "tune": "tuning",
    "canary": "new image",
}
_AGAINST = {"same": "same as published", "better": "better than published", "worse": "worse than published"}
_UNPROVEN = "run `dsv4 qualify` or `dsv4 smoke`."


def newest(results: Sequence[Result]) -> list[Result]:
    """Return the newest result of each kind and subject, in the order of the page."""
    found = {(result["kind"], result["subject"]): result for result in results if result["kind"] in _NAMES}
    return sorted(found.values(), key=lambda result: list(_NAMES).index(result["kind"]))


def sentence(results: Sequence[Result]) -> Verdict:
    """Return the verdict of the page."""
    last = newest(results)
    levels = [(result, outcome(result)) for result in last]
    speed = _speed(last)
    if failed := [_named(result, found) for result, found in levels if found.level == "bad"]:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        return Verdict(f"Do not serve this yet: {failed[0]}{more}.", "bad")
    if opened := [_named(result, found) for result, found in levels if found.level == "open"]:
        return Verdict(f"Not decided yet: {opened[0]}.", "open")
    proven = [_NAMES[kind] for kind in ("qualify", "smoke", "eval") if _passed(levels, kind)]
    if proven:
        return Verdict(f"Passed: {', '.join(proven)}{f'; {speed}' if speed else ''}.", "good")
    gate = draft_gate(results)
    if gate:
        return Verdict(f"Draft gate: {gate.text}{f'; {speed}' if speed else ''}.", gate.level)
    return Verdict(f"Answers are unproven: {speed or 'nothing here checks them'}; {_UNPROVEN}", "open")


def table(results: Sequence[Result]) -> Table:
    """Return one row for the newest result of each kind and subject."""
    rows = [
        (_NAMES[result["kind"]], outcome(result), result["subject"], result["date"][:10]) for result in newest(results)
    ]
    gate = draft_gate(results)
    rows += [("draft gate", gate, "constructed checkpoints", _last_layout(results))] if gate else []
    return Table(("what", "result", "of", "date (UTC)"), tuple(rows))


def outcome(result: Result) -> Verdict:
    """Return what one result says in short."""
    kind = result["kind"]
    if kind == "eval":
        word = evaluate.verdict(result)
        against = _AGAINST.get(word, word) if word else "nothing published to compare with"
        return Verdict(f"{share(result['scores'][0])}, {against}", QUALITY.get(word or "", "none"))
    if kind == "qualify":
        return Verdict(result["verdict"], _qualified(result))
    if kind == "smoke":
        return _smoke(result)
    if kind == "canary":  # rolled back says nothing against what is served
        return Verdict(result["verdict"], "good" if result["ok"] else "none")
    if kind == "tune":
        nothing = "no faster setting" if result.get("finished", True) else "not decided"
        return Verdict(f"{result.get('gain', 0):.1%} faster" if result.get("best") else nothing, "none")
    return Verdict(_fastest([result]) or "no rows", "none")


def draft_gate(results: Sequence[Result]) -> Verdict | None:
    """Return how many constructed checkpoints ended as expected; None where there are none."""
    layouts = [result for result in results if result["kind"] == "layout"]
    ours = [run for run in layouts if not run["stock"] and run["result"] != "cut"]  # out of time: no verdict
    right = sum(run["result"] != "failed" for run in ours)
    return Verdict(f"{right} of {len(ours)} as expected", "good" if right == len(ours) else "bad") if ours else None


def _qualified(result: Result) -> Level:
    if result["ok"]:
        return "good"
    return "bad" if any(check["verdict"] == "failed" for check in result["checks"]) else "open"


def _smoke(result: Result) -> Verdict:
    named = {word: [one["name"] for one in result["checks"] if one["verdict"] == word] for word in ("failed", "passed")}
    if named["failed"]:
        return Verdict(f"{', '.join(named['failed'])} failed", "bad")
    if not named["passed"]:
        return Verdict("no check passed", "open")
    return Verdict(f"passed ({len(named['passed'])} of {len(result['checks'])} checks)", "good")


def _passed(levels: Sequence[tuple[Result, Verdict]], kind: str) -> bool:
    return any(result["kind"] == kind and found.level == "good" for result, found in levels)


def _named(result: Result, found: Verdict) -> str:
    return f"{_NAMES[result['kind']]} of {result['subject']} ({found.text})"


def _speed(results: Sequence[Result]) -> str:
    return _fastest([result for result in results if result["kind"] == "bench"])


def _fastest(results: Sequence[Result]) -> str:
    rows = [(row, result) for result in results for row in result["rows"]]
    best, result = max(rows, key=lambda pair: float(pair[0]["output_tokens_per_second"]), default=(None, None))
    if best is None or result is None:
        return ""
    requests = "request" if best["batch"] == 1 else "requests at once"
    dummy = ", with dummy weights" if "dummy" in result.get("weights", "") else ""
    return f"up to {best['output_tokens_per_second']:,.1f} output tokens/s for {best['batch']} {requests}{dummy}"


def _last_layout(results: Sequence[Result]) -> str:
    return str(max(result["date"] for result in results if result["kind"] == "layout"))[:10]
