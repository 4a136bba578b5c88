"""What became of each candidate, and how it is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4_serve.entrypoint.bench.options import LoadMatrix
from dsv4_serve.entrypoint.tune import decide, outcome, text
from dsv4_serve.entrypoint.tune.candidates import TuneCandidate
from dsv4_serve.entrypoint.tune.decide import PLAN, TuneTrial
from dsv4_serve.entrypoint.tune.kept import Kept
from dsv4_serve.entrypoint.tune.measure import Visit
from dsv4_serve.entrypoint.tune.options import TuneRequest
from dsv4_serve.entrypoint.tune.setups import Setups
from tests.entrypoint.tune.test_kept import row
from tests.support.examples import examples

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
    assert made["enough_hours"] is None
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


@pytest.mark.parametrize(("times", "word"), [(1.3, "behind the winner"), (1.004, "within the noise")])
def test_what_a_winner_rules_out_is_behind_it_if_it_looked_faster(setups: Setups, times: float, word: str) -> None:
    clashing = replace(setups, candidates={**setups.candidates, "b": replace(setups.candidates["b"], kind="a")})
    visits = [visit(PLAN, jitter=n / 1000) for n in range(5)] + [visit(("a",), 1.5, 1.5) for _ in range(4)]
    visits += [visit(("b",), times, times), *(visit((name,), 0.999, 0.999) for name in "cde")]
    verdicts = {one["name"]: one["verdict"] for one in body(clashing, visits)["candidates"]}
    assert verdicts == {"a": "wins", "b": word, **dict.fromkeys("cde", "no faster")}


H200: tuple[tuple[decide.Setup, float, float], ...] = (
    (PLAN, 468.18, 1426.68),
    (("drafts-3",), 931.67, 1577.57),
    (("drafts-2",), 453.39, 1690.57),
    (PLAN, 349.52, 1223.49),
    (("drafts-3",), 907.06, 2804.22),
    (("drafts-3",), 709.36, 2700.11),
    (("drafts-3",), 757.25, 2383.32),
)
"""The starts of the fourth run on H200 (docs/how-to/tune.md): tok/s at batch 1 and 4."""


def of_h200(setups: Setups, count: int, share: float = 1.0) -> dict[str, Any]:
    """The result after so many of its starts, had those of drafts-3 only had this share of their speed."""
    drafts = {name: TuneCandidate(name, "drafts", {"k": name[-1]}, "") for name in ("drafts-3", "drafts-2")}
    visits = []
    for setup, one, four in H200[:count]:
        times = share if setup == ("drafts-3",) else 1.0
        rows = tuple(row(batch=b, output_tokens_per_second=v * times) for b, v in ((1, one), (4, four)))
        visits.append(Visit(TuneTrial(setup, {1: one * times, 4: four * times}, seconds=150), rows, {"settings": {}}))
    starts, drafted = Kept(Path("none"), visits), replace(setups, candidates=drafts)
    now = decide.standing(list(drafts), starts.trials, drafted.clash)
    return {**outcome.body(REQUEST, drafted, {}, starts, now), "profile": "mine.toml", "file": "result.json"}


@pytest.mark.parametrize(
    ("count", "gain"), [(2, "+48.3%"), (3, "+48.3%"), (4, "+65.8%"), (5, "+118.2%"), (6, "+103.2%")]
)
def test_a_gain_on_h200_is_not_decided_before_its_starts_suffice(setups: Setups, count: int, gain: str) -> None:
    told = text.outcome(of_h200(setups, count))
    assert f"drafts-3   unknown    {gain}" in told
    assert "within the noise" not in told
    assert "not yet decided: drafts-3" in told


def test_a_gain_on_h200_wins_with_the_seventh_start(setups: Setups) -> None:
    made = of_h200(setups, 7)
    assert [one["verdict"] for one in made["candidates"]] == ["wins", "behind the winner"]
    assert (made["gain"], made["finished"]) == (0.9652, True)


def test_a_candidate_with_all_its_starts_is_not_decided_while_the_plan_lacks_one(setups: Setups) -> None:
    made = of_h200(setups, 7, share=0.9)
    assert made["candidates"][0] == {**made["candidates"][0], "verdict": "not decided", "starts": 4}
    told = text.outcome(made)
    assert "noise: 12.6% from start to start; 7 starts that count" in told
    assert "time is up; not yet decided: drafts-3, drafts-2; the same command with" in told


def test_what_gains_nothing_over_the_winner_is_behind_it(setups: Setups) -> None:
    visits = [visit(PLAN, jitter=n / 1000) for n in range(5)] + [visit(("a",), 1.5, 1.5) for _ in range(4)]
    visits += [visit(("b",), 1.3, 1.3), *(visit(("a", "b"), 1.5, 1.5, jitter=n / 1000) for n in range(3))]
    verdicts = {one["name"]: one["verdict"] for one in body(setups, visits)["candidates"]}
    assert (verdicts["a"], verdicts["b"]) == ("wins", "behind the winner")


SPEED = st.sampled_from([50.0, 90.0, 99.0, 100.0, 100.5, 101.0, 110.0, 150.0, 200.0, 210.0])
SETUP = st.lists(st.sampled_from("ab"), max_size=2, unique=True).map(tuple)
MEASURED = st.tuples(SPEED, SPEED, st.sampled_from(["", "", "", "", "", "", "it failed"]))


@st.composite
def some_starts(draw: st.DrawFn) -> tuple[list[TuneTrial], bool, float]:
    """Starts in the order in which they are asked for, and then any others; whether the candidates clash; time gone."""
    clash, spent, trials = draw(st.booleans()), draw(st.sampled_from([0.0, 0.7])), list[TuneTrial]()
    for one, many, failed in draw(st.lists(MEASURED, max_size=16)):
        now = decide.standing(["a", "b"], trials, lambda _a, _b: clash, spent)
        setup = draw(SETUP) if now.next is None else now.next
        trials.append(TuneTrial(setup, {1: one, 16: many}, failed if setup else ""))
    return trials, clash, spent


@settings(max_examples=examples(400), deadline=None)
@given(some_starts())
def test_within_the_noise_is_only_what_no_further_start_could_show_to_be_faster(
    made: tuple[list[TuneTrial], bool, float],
) -> None:
    trials, clash, spent = made

    def clashes(_first: str, _second: str) -> bool:
        return clash

    now = decide.standing(["a", "b"], trials, clashes, spent)
    starts = Kept(Path("none"), [Visit(trial) for trial in trials])
    verdicts = {name: outcome.verdict(name, starts, now, clashes)["verdict"] for name in "ab"}
    undecided = [name for name, word in verdicts.items() if word == outcome.UNDECIDED]
    if now.next is None:
        assert not {outcome.UNDECIDED, outcome.WAITS} & {*verdicts.values()}
    elif now.next == now.best:
        assert undecided or len(decide.of(trials, PLAN)) < 2, "it is started for a candidate"
    elif now.next:
        assert verdicts[now.next[-1]] in (outcome.UNDECIDED, outcome.WAITS)
    for name, word in verdicts.items():
        if word == outcome.NOISE:
            assert decide.noise(trials).freedom, "noise is known"
            assert not decide.compare(trials, PLAN, (name,)).wins
            assert len(decide.of(trials, PLAN)) >= decide.CLEAR_REPEATS


def test_a_run_without_time_says_what_is_open(setups: Setups) -> None:
    made = body(setups, [visit(PLAN), visit(("a",), 1.3, 1.3)])
    verdicts = {one["name"]: one["verdict"] for one in made["candidates"]}
    assert verdicts == {"a": "not decided", **dict.fromkeys("bcde", "not tried")}
    told = text.outcome(made)
    assert "time is up; not yet tried: b, c, d, e; not yet decided: a; the same command with --hours" in told
    assert "noise: unknown, too few starts; 2 starts that count in 2 minutes" in told
    assert "Keep what you have: nothing is decided yet." in told
    assert "too few starts; 1 start that counts in " in text.outcome(body(setups, [visit(PLAN)]))


def test_a_run_that_tried_nothing_does_not_say_that_nothing_was_faster(setups: Setups) -> None:
    told = text.outcome(body(setups, [visit(PLAN)]))
    assert "not yet tried: a, b, c, d, e" in told
    assert "Keep what you have: nothing is decided yet." in told


def test_the_proposal_lists_candidates_and_reasons(setups: Setups) -> None:
    told = text.proposal(list(setups.candidates.values())[:1], {"x": "it does not fit"}, (1, 16))
    assert told.splitlines()[0] == "for batch 1, 16"
    assert "a          unknown    why a" in told
    assert told.endswith("not tried:\n  x: it does not fit")
    assert "nothing is left to try" in text.proposal([], {}, (1,))
