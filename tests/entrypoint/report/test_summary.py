"""The sentence at the top of the report follows from the newest results."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4_serve.entrypoint.report import summary

PASSED = {"name": "chat", "verdict": "passed"}
FAILED = {"name": "tool call", "verdict": "failed"}
OPEN = {"name": "needles", "verdict": "inconclusive"}


def smoke(*checks: dict[str, str], date: str = "2026-11-28") -> dict[str, Any]:
    return {"kind": "smoke", "subject": "w4a16", "date": date, "checks": list(checks)}


def qualify(verdict: str, *checks: dict[str, str], ok: bool = False) -> dict[str, Any]:
    return {
        "kind": "qualify",
        "subject": "w4a16",
        "date": "2026-11-28",
        "ok": ok,
        "verdict": verdict,
        "checks": list(checks),
    }


def bench(weights: str = "as served") -> dict[str, Any]:
    rows = [{"batch": batch, "output_tokens_per_second": batch * 100.0} for batch in (1, 4)]
    return {"kind": "bench", "subject": "w4a16", "date": "2026-11-28", "rows": rows, "weights": weights}


def layout(result: str) -> dict[str, Any]:
    return {"kind": "layout", "date": "2026-11-22", "stock": False, "result": result}


SPEED = "up to 400.0 output tokens/s for 4 requests at once"
UNPROVEN = "run `dsv4 qualify` or `dsv4 smoke`."


@pytest.mark.parametrize(
    ("results", "level", "text"),
    [
        ([smoke(PASSED), bench()], "good", f"Passed: smoke test; {SPEED}."),
        ([qualify("qualified", ok=True), smoke(PASSED, OPEN)], "good", "Passed: qualification, smoke test."),
        ([smoke(FAILED, PASSED), bench()], "bad", "Do not serve this yet: smoke test of w4a16 (tool call failed)."),
        (
            [smoke(FAILED), qualify("no", FAILED)],
            "bad",
            "Do not serve this yet: qualification of w4a16 (no), and 1 more.",
        ),
        ([smoke(FAILED), smoke(PASSED, date="2026-11-29")], "good", "Passed: smoke test."),
        (
            [qualify("not finished: load", OPEN)],
            "open",
            "Not decided yet: qualification of w4a16 (not finished: load).",
        ),
        ([smoke(OPEN)], "open", "Not decided yet: smoke test of w4a16 (no check passed)."),
        ([bench()], "open", f"Answers are unproven: {SPEED}; {UNPROVEN}"),
        ([bench("dummy weights")], "open", f"Answers are unproven: {SPEED}, with dummy weights; {UNPROVEN}"),
        ([], "open", f"Answers are unproven: nothing here checks them; {UNPROVEN}"),
        ([layout("served"), layout("cut")], "good", "Draft gate: 1 of 1 as expected."),
        ([layout("served"), layout("failed")], "bad", "Draft gate: 1 of 2 as expected."),
    ],
)
def test_the_sentence(results: list[dict[str, Any]], level: str, text: str) -> None:
    found = summary.sentence(results)
    assert (found.level, found.text) == (level, text)


def test_a_canary_that_was_rolled_back_says_nothing_against_what_is_served() -> None:
    canary = {"kind": "canary", "subject": "canary", "date": "2026-11-29", "ok": False, "verdict": "Rolled back: why."}
    assert summary.outcome(canary).level == "none"
    assert summary.sentence([smoke(PASSED), canary]).level == "good"
    assert [row[:2] for row in summary.table([canary]).rows] == [("new image", summary.outcome(canary))]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"best": [], "finished": True}, "no faster setting"),
        ({"best": []}, "no faster setting"),
        ({"best": [], "finished": False}, "not decided"),
        ({"best": ["drafts-3"], "finished": False, "gain": 0.5}, "50.0% faster"),
    ],
)
def test_a_tuning_without_a_winner_is_not_decided_until_it_is_finished(changed: dict[str, Any], text: str) -> None:
    assert summary.outcome({"kind": "tune", "subject": "w4a16", "date": "2026-11-28", **changed}).text == text
