"""The order of stages, the budget, an interrupt, and what the next run finds."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.client.local_replica import ReplicaEnded, Stopped
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.qualify import kept, run, small
from dsv4_serve.entrypoint.qualify.asking import OutOfTime
from dsv4_serve.entrypoint.qualify.box import Box
from dsv4_serve.entrypoint.smoke.outcome import Outcome, failed, passed, skipped


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages in the order in which they ran; each passes, and the small replica is none."""
    ran: list[str] = []

    def stage(name: str) -> Callable[..., Outcome]:
        return lambda *_: ran.append(name) or passed("fine")

    @contextmanager
    def replica(*_: Any) -> Iterator[str]:
        ran.append("start")
        try:
            yield "replica"
        finally:
            ran.append("stop")

    monkeypatch.setattr(run, "ALONE", {name: stage(name) for name in run.ALONE})
    monkeypatch.setattr(run, "ON_SMALL", {name: stage(name) for name in run.ON_SMALL})
    monkeypatch.setattr(small, "write", lambda _: "model")
    monkeypatch.setattr(small, "replica", replica)
    return ran


def put(monkeypatch: pytest.MonkeyPatch, name: str, stage: Callable[..., Outcome]) -> None:
    stages = "ALONE" if name in run.ALONE else "ON_SMALL"
    monkeypatch.setattr(run, stages, {**getattr(run, stages), name: stage})


def verdicts(outcomes: list[Outcome]) -> dict[str, str]:
    return {one.name: one.verdict for one in outcomes}


def test_one_replica_serves_all_stages_that_need_it(box: Box, done: list[str], tmp_path: Path) -> None:
    outcomes = run.run(box, run.STAGES, tmp_path / "kept")
    assert [one.name for one in outcomes] == [*run.STAGES]
    assert done == ["host", "all-reduce", "start", *run.ON_SMALL, "stop", "numerics", "full-size"]


def test_an_interrupt_keeps_what_is_finished_and_the_next_run_goes_on(
    box: Box, done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Outcome:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        return passed("too late")

    sound = run.ON_SMALL["depth"]
    put(monkeypatch, "depth", interrupted)
    with pytest.raises(Stopped) as stopped:
        run.run(box, run.STAGES, tmp_path / "kept")
    assert stopped.value.exit_status == 130
    assert done[-1] == "stop"
    done.clear()
    put(monkeypatch, "depth", sound)
    outcomes = run.run(box, run.STAGES, tmp_path / "kept")
    assert done == ["start", "depth", "faults", "stop", "numerics", "full-size"]
    assert verdicts(outcomes) == dict.fromkeys(run.STAGES, "passed")


def test_what_failed_is_tried_again(box: Box, done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, "load", lambda *_: failed("corrupt", "another backend"))
    assert verdicts(run.run(box, run.STAGES, tmp_path / "kept"))["load"] == "failed"
    done.clear()
    run.run(box, run.STAGES, tmp_path / "kept")
    assert done == ["start", "stop"]


def test_another_digest_does_not_resume(box: Box, make_box: Callable[..., Box]) -> None:
    replica = {"patches": {"patches": []}, "versions": {"vllm": "0.32.0"}, "machine": {"cpu": "x", "cores": 2}}
    other = make_box(hardware="cpu", profile="demo-v4", model="demo-v4=/nowhere/small", max_num_seqs="2")
    digest = kept.digest(box.plan, replica)
    assert digest == kept.digest(box.plan, replica)
    assert digest != kept.digest(other.plan, replica)
    assert digest != kept.digest(box.plan, {**replica, "versions": {"vllm": "0.33.0"}})
    patch = {"name": "one", "sha256": "0" * 64, "state": "applied"}
    assert digest != kept.digest(box.plan, {**replica, "patches": {"patches": [patch]}})


def test_when_time_is_over_nothing_more_begins(box: Box, done: list[str], tmp_path: Path) -> None:
    outcomes = run.run(replace(box, until=time.monotonic() - 1), run.STAGES, tmp_path / "kept")
    assert set(verdicts(outcomes).values()) == {"inconclusive"}
    assert done == []


def test_an_answer_that_does_not_come_in_time_leaves_the_stage_open(
    box: Box, done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: Any) -> Outcome:
        raise OutOfTime("late")

    put(monkeypatch, "load", late)
    outcomes = run.run(box, ["load", "depth"], tmp_path / "kept")
    assert verdicts(outcomes) == {"load": "inconclusive", "depth": "passed"}
    assert [name for name in done if name in run.ON_SMALL] == ["depth"]


def test_a_replica_that_ends_fails_the_first_stage(
    box: Box, done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def ends(*_: Any) -> Iterator[str]:
        raise ReplicaEnded("the replica ended with status 85: the draft head drafts noise")
        yield "never"

    monkeypatch.setattr(small, "replica", ends)
    outcomes = run.run(box, run.STAGES, tmp_path / "kept")
    expected = {"known-answers": "failed", "load": "inconclusive", "depth": "inconclusive", "faults": "inconclusive"}
    assert {name: verdict for name, verdict in verdicts(outcomes).items() if name in run.ON_SMALL} == expected
    assert "full-size" in done


def test_without_a_small_checkpoint_its_stages_are_skipped_with_the_reason(
    box: Box, done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: Box) -> None:
        raise ConfigError("there is no small checkpoint of the layout of v41-flash.")

    monkeypatch.setattr(small, "write", none)
    outcomes = run.run(box, run.STAGES, tmp_path / "kept")
    assert {one.verdict for one in outcomes if one.name in run.ON_SMALL} == {"skipped"}
    assert all("v41-flash" in one.seen for one in outcomes if one.name in run.ON_SMALL)
    assert "start" not in done


def test_a_kept_file_of_another_version_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text(json.dumps([{"name": "host", "verdict": "splendid"}]))
    assert kept.read(path) == {}
    kept.write(path, [replace(passed("fine"), name="host"), replace(skipped("why"), name="all-reduce")])
    assert [*kept.read(path)] == ["host", "all-reduce"]
