"""What became of each candidate, and how it is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench.options import LoadMatrix
from dsv4_serve.entrypoint.tune import decide, outcome, text
from dsv4_serve.entrypoint.tune.candidates import TuneCandidate
from dsv4_serve.entrypoint.tune.decide import PLAN, TuneTrial
from dsv4_serve.entrypoint.tune.kept import Kept
from dsv4_serve.entrypoint.tune.measure import Visit
from dsv4_serve.entrypoint.tune.options import TuneRequest
from dsv4_serve.entrypoint.tune.setups import Setups
from tests.entrypoint.tune.test_kept import row

NAMES = ("a", "b", "c", "d", "e")
REQUEST = TuneRequest(LoadMatrix((1, 16)), 3600.0, "mine", Path())
SPEEDS = {"a": (1.3, 1.3), "b": (0.8, 0.9), "c": (1.5, 0.8)}


def visit(setup: decide.Setup, one: float = 1.0, many: float = 1.0, jitter: float = 0.0) -> Visit:
    speeds = {1: 100.0 * one * (1 + jitter), 16: 900.0 * many * (1 + jitter)}
    rows = tuple(row(batch=batch, output_tokens_per_second=speed) for batch, speed in speeds.items())
    return Visit(TuneTrial(setup, speeds, seconds=60), rows, {"choices": {"profile": "64k"}, "settings": {}})


@pytest.fixture
def setups(tmp_path: Path) -> Setups:
    made = {name: TuneCandidate(name, name, {f"flag-{name}": 1}, f"why {name}") for name in NAMES}
    return Setups("64k", lambda _name, _folders: pytest.fail("nothing is resolved"), made, tmp_path)


def body(setups: Setups, visits: list[Visit]) -> dict[str, Any]:
    starts = Kept(Path("none"), visits)
    now = decide.standing(NAMES, starts.trials, setups.clash)
    made = outcome.body(REQUEST, setups, {"x": "it does not fit"}, starts, now)
    return {**made, "profile": "mine.toml", "file": "result.json"}


def whole() -> list[Visit]:
    plan = [visit(PLAN, jitter=n / 1000) for n in range(5)]
    first = [visit((name,), *SPEEDS[name]) for name in "abc"]
    failed = Visit(TuneTrial(("d",), failed="the draft gate refused it", seconds=30))
    again = [visit(("a",), *SPEEDS["a"], jitter=n / 1000) for n in range(3)]
    again += [visit(("c",), *SPEEDS["c"], jitter=n / 1000) for n in range(3)]
    again += [visit(("a", "c"), 1.3 * 1.5, 1.3 * 0.8, jitter=n / 1000) for n in range(3)]
    return [*plan, *first, failed, visit(("e",), 0.999, 0.999), *again]


def test_every_verdict_has_its_name(setups: Setups) -> None:
    made = body(setups, whole())
    verdicts = {one["name"]: one["verdict"] for one in made["candidates"]}
    assert verdicts == {"a": "wins", "b": "slower", "c": "slower", "d": "failed", "e": "no faster"}
    assert made["best"] == ["a"]
    assert made["changes"] == {"flag-a": 1}
    assert made["finished"]
    assert made["spent_seconds"] == 60 * 18 + 30
    assert [round(r["output_tokens_per_second"], 2) for r in made["before"]] == [100.2, 901.8]
    told = text.outcome(made)
    assert "slower at batch 16" in told
    assert "failed: the draft gate refused it" in told
    assert "100.20" in told
    assert "+29.9%" in told
    assert "profile: mine.toml" in told


def test_what_a_winner_gains_is_what_its_speeds_say_without_the_start_that_it_was_picked_for(setups: Setups) -> None:
    starts = [visit(PLAN), visit(PLAN), visit(("a",), 2.6, 2.6), visit(("a",), 2.0, 2.0), visit(("a",), 2.42, 2.42)]
    starts += [visit((name,), 0.5, 0.5) for name in "bcde"] + [visit(PLAN), visit(("a",), 2.2, 2.2)]
    made = body(setups, starts)
    assert made["best"] == ["a"]
    assert made["gain"] == pytest.approx(1.2)
    assert [row["starts"] for row in (*made["before"], *made["after"])] == [3, 3, 3, 3]
    assert [round(row["output_tokens_per_second"]) for row in made["after"]] == [220, 1980]


def test_what_a_winner_rules_out_is_behind_it_and_not_within_the_noise(setups: Setups) -> None:
    clashing = replace(setups, candidates={**setups.candidates, "b": replace(setups.candidates["b"], kind="a")})
    visits = [visit(PLAN, jitter=n / 1000) for n in range(5)] + [visit(("a",), 1.5, 1.5) for _ in range(4)]
    visits += [visit(("b",), 1.3, 1.3), *(visit((name,), 0.999, 0.999) for name in "cde")]
    verdicts = {one["name"]: one["verdict"] for one in body(clashing, visits)["candidates"]}
    assert verdicts == {"a": "wins", "b": "behind the winner", **dict.fromkeys("cde", "no faster")}


def test_a_run_without_time_says_what_is_open(setups: Setups) -> None:
    made = body(setups, [visit(PLAN), visit(("a",), 1.3, 1.3)])
    verdicts = {one["name"]: one["verdict"] for one in made["candidates"]}
    assert verdicts == {"a": "not decided", **dict.fromkeys("bcde", "not tried")}
    told = text.outcome(made)
    assert "time is up; not yet tried: b, c, d, e; not yet decided: a; the same command with --hours" in told
    assert "noise: unknown, too few starts; 2 starts that count in 2 minutes" in told
    assert "Keep what you have: nothing is decided yet." in told


def test_a_run_that_tried_nothing_does_not_say_that_nothing_was_faster(setups: Setups) -> None:
    told = text.outcome(body(setups, [visit(PLAN)]))
    assert "not yet tried: a, b, c, d, e" in told
    assert "Keep what you have: nothing is decided yet." in told


def test_the_hours_that_are_named_are_enough_for_every_candidate_and_one_decision(setups: Setups) -> None:
    made = body(setups, [visit(PLAN), visit(("a",), 1.3, 1.3)])  # 60 s each; four are not tried
    assert text.hours(made) == pytest.approx(max(0.3, made["hours"] + 0.1))
    assert text.hours({**made, "hours": 2.0}) == pytest.approx(2.1)
    assert text.hours({**made, "hours": 0.01, "starts": [{**one, "seconds": 600.0} for one in made["starts"]]}) == 2.1
    compiled = [{**made["starts"][0], "seconds": 600.0}, {**made["starts"][1], "seconds": 60.0}]
    assert text.hours({**made, "hours": 0.01, "starts": compiled}) == pytest.approx(0.3), "only the first one compiles"


def test_the_proposal_lists_candidates_and_reasons(setups: Setups) -> None:
    told = text.proposal(list(setups.candidates.values())[:1], {"x": "it does not fit"}, (1, 16))
    assert told.splitlines()[0] == "for batch 1, 16"
    assert "a          unknown    why a" in told
    assert told.endswith("not tried:\n  x: it does not fit")
    assert "nothing is left to try" in text.proposal([], {}, (1,))
