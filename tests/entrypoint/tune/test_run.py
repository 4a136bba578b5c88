"""The time of a run is kept, whatever its starts take and how often it is interrupted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench.options import LoadMatrix, ServeOptions
from dsv4_serve.entrypoint.client.local_replica import ReplicaEnded, Stopped
from dsv4_serve.entrypoint.tune import decide, kept, measure, run
from dsv4_serve.entrypoint.tune.candidates import TuneCandidate
from dsv4_serve.entrypoint.tune.decide import PLAN, Setup, TuneTrial
from dsv4_serve.entrypoint.tune.measure import Bench, Visit
from dsv4_serve.entrypoint.tune.options import TuneRequest
from dsv4_serve.entrypoint.tune.setups import Setups
from tests.entrypoint.tune.test_kept import row

NAMES = ["a", "b", "c"]
Answer = Callable[[Setup, float], Visit]


def good(setup: Setup, _seconds: float) -> Visit:
    return Visit(TuneTrial(setup, {1: 100.0}, seconds=100.0), (row(),), {})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = {name: TuneCandidate(name, name, {f"flag-{name}": 1}, "") for name in NAMES}
    setups = Setups("64k", lambda _name, _folders: pytest.fail("nothing is resolved"), made, tmp_path)
    return Bench(setups, ServeOptions({}), LoadMatrix((1,)), {}, tmp_path / "logs")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, bench: Bench, tmp_path: Path) -> Callable[..., Any]:
    """Run for so many seconds with these answers of starts; return what was asked for, and what is kept."""
    asked: list[tuple[Setup, float]] = []

    def go(seconds: float, answer: Answer = good) -> tuple[list[tuple[Setup, float]], kept.Kept]:
        def visit(_bench: Bench, setup: Setup, remaining: float, *, first: bool) -> Visit:
            assert first is (not starts.visits), "only the first start compiles for all"
            asked.append((setup, remaining))
            return answer(setup, remaining)

        monkeypatch.setattr(measure, "visit", visit)
        request = TuneRequest(LoadMatrix((1,)), seconds, "mine", tmp_path)
        starts = kept.opened(tmp_path / "starts.jsonl")
        run.measured(bench, request, NAMES, starts)
        return asked, starts

    return go


def test_no_start_begins_that_could_outlast_the_time(started: Callable[..., Any]) -> None:
    asked, starts = started(350)
    assert [setup for setup, _ in asked] == [PLAN, ("a",), ("b",)]
    assert [remaining for _, remaining in asked] == [350, 250, 150]
    assert starts.spent == 300


def test_a_first_start_that_compiled_kernels_does_not_end_the_run_early(started: Callable[..., Any]) -> None:
    asked: list[Setup] = []

    def colder(setup: Setup, seconds: float) -> Visit:
        asked.append(setup)
        one = good(setup, seconds)
        return dataclasses.replace(
            one, trial=dataclasses.replace(one.trial, seconds=500.0 if len(asked) == 1 else 100.0)
        )

    started(1000, colder)
    assert len(asked) == 5  # the fifth ends after 900 s


@pytest.mark.parametrize(("seconds", "starts"), [(620, 1), (630, 2), (700, 3)])
def test_after_a_first_start_that_compiled_kernels_a_quarter_of_its_time_is_enough_for_the_second(
    started: Callable[..., Any], seconds: float, starts: int
) -> None:
    def colder(setup: Setup, remaining: float) -> Visit:
        one = good(setup, remaining)
        spent = 100.0 if setup or remaining < seconds else 500.0
        return dataclasses.replace(one, trial=dataclasses.replace(one.trial, seconds=spent))

    asked, _ = started(seconds, colder)
    assert len(asked) == starts


def test_a_run_with_more_time_continues_where_it_was(started: Callable[..., Any]) -> None:
    started(250)
    asked, _ = started(10_000)
    assert [setup for setup, _ in asked] == [PLAN, ("a",), ("b",), PLAN, ("c",)]
    assert asked[2][1] == 10_000 - 200
    again, _ = started(10_000)
    assert len(again) == 5  # nothing is left to measure


def test_starts_of_candidates_that_are_no_longer_proposed_are_kept_and_change_nothing(
    started: Callable[..., Any], tmp_path: Path
) -> None:
    started(10_000)
    starts = kept.opened(tmp_path / "starts.jsonl")
    starts.add(Visit(TuneTrial(("experts-marlin",), {1: 1000.0}, seconds=100.0), (row(),), {}))
    asked, starts = started(10_000)
    assert len(asked) == 5, "nothing is left to measure"
    assert starts.trials[-1].setup == ("experts-marlin",)
    assert decide.standing(NAMES, starts.trials, lambda _a, _b: False) == decide.TuneStanding(PLAN, None)


def test_a_setup_that_was_not_ready_when_the_time_was_over_is_not_called_a_failure(started: Callable[..., Any]) -> None:
    def late(setup: Setup, remaining: float) -> Visit:
        return Visit(TuneTrial(setup, failed="not ready", seconds=remaining)) if setup else good(setup, remaining)

    asked, starts = started(350, late)
    assert [setup for setup, _ in asked] == [PLAN, ("a",)]
    assert [trial.setup for trial in starts.trials] == [PLAN]


def test_a_signal_ends_the_run_and_keeps_what_was_measured(started: Callable[..., Any], tmp_path: Path) -> None:
    def stopped(setup: Setup, remaining: float) -> Visit:
        if setup:
            raise Stopped(15)
        return good(setup, remaining)

    with pytest.raises(Stopped):
        started(1000, stopped)
    assert [trial.setup for trial in kept.opened(tmp_path / "starts.jsonl").trials] == [PLAN]


def test_a_drafter_that_drafts_worse_does_not_count(started: Callable[..., Any]) -> None:
    def worse(setup: Setup, remaining: float) -> Visit:
        fine = good(setup, remaining)
        return dataclasses.replace(fine, rows=(row(by_position=[0.6]),)) if setup == ("a",) else fine

    _, starts = started(10_000, worse)
    failed: Mapping[Setup, str] = {trial.setup: trial.failed for trial in starts.trials}
    assert failed[("a",)] == "60% of the drafts have their first token accepted at batch 1, 95% with the plan"
    assert not failed[("b",)]


def test_the_plan_itself_has_to_start(started: Callable[..., Any], tmp_path: Path) -> None:
    def broken(_setup: Setup, _remaining: float) -> Visit:
        raise ReplicaEnded("the replica ended")

    with pytest.raises(ReplicaEnded):
        started(1000, broken)
    assert not (tmp_path / "starts.jsonl").exists()


def test_each_start_says_how_many_a_decision_takes(
    started: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    started(10_000)
    told = [message for message in caplog.messages if message.startswith("start ")]
    assert told[:3] == [
        "start 1: the plan (167 minutes are left; a decision takes about 7 starts)",
        "start 2: a (165 minutes are left; a decision takes about 6 starts, up to 10 minutes)",
        "start 3: b (163 minutes are left; a decision takes about 5 starts, up to 9 minutes)",
    ]
    assert told[-1] == "start 5: c (160 minutes are left; a decision takes about 3 starts, up to 5 minutes)"
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_too_little_time_is_told_as_soon_as_it_is_known_and_once(
    started: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    started(450)
    [told] = [message for message in caplog.messages if "too little" in message]
    assert told == (
        "too little time is left for a decision, which takes about 4 starts, up to 7 minutes; starts are kept, "
        "so the same command with --hours 0.2 continues after them"
    )
    before = caplog.messages[: caplog.messages.index(told)]
    assert [message.split(" (")[0] for message in before] == ["start 1: the plan", "start 2: a"]
