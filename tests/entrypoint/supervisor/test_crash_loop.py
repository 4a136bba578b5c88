"""The crash-loop breaker: what it remembers, and how long it makes a start wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsv4_serve.entrypoint.supervisor import crash_loop
from dsv4_serve.entrypoint.supervisor.crash_loop import StartRecord

HOUR = 3600.0


def test_one_failure_is_answered_with_a_start_at_once_and_each_further_one_waits_twice_as_long() -> None:
    waits = [crash_loop.backoff(failures, 10, 900) for failures in range(10)]
    assert waits == [0, 0, 10, 20, 40, 80, 160, 320, 640, 900]


def test_a_plan_that_dies_after_a_minute_is_started_at_most_thirteen_times_in_an_hour() -> None:
    """35 restarts brought a host down: eugr/spark-vllm-docker#257."""
    remembered, clock, starts = StartRecord(), 0.0, 0
    while clock < HOUR:
        remembered = remembered.begin("plan")
        clock += crash_loop.backoff(remembered.failures, 10, 900) + 60
        starts += 1
        remembered = remembered.end("hung", clock, failed=True)
    assert starts <= 13


def test_a_changed_plan_starts_at_once() -> None:
    failed = StartRecord("old", starts=7, failures=6, ended=1.0, cause="hung")
    assert failed.begin("new") == StartRecord("new", starts=1)


def test_a_start_without_an_exit_reason_counts_as_a_failure() -> None:
    killed = StartRecord().begin("plan")
    again = killed.begin("plan")
    assert (again.starts, again.failures, again.cause) == (2, 1, "no exit reason was recorded")


def test_a_good_end_and_a_healthy_hour_reset_the_count_of_failures() -> None:
    failing = StartRecord("plan", starts=3, failures=2)
    assert failing.end("drained", 1.0, failed=False).failures == 0
    assert failing.healthy().failures == 0


def test_the_record_outlives_the_process(tmp_path: Path) -> None:
    crash_loop.save(tmp_path, StartRecord("plan", 2, 1, 5.0, "hung"))
    assert crash_loop.load(tmp_path) == StartRecord("plan", 2, 1, 5.0, "hung")
    assert [file.name for file in tmp_path.iterdir()] == ["starts.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plans": 1}', "\x00"])
def test_a_record_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / crash_loop.FILE).write_text(text)
    assert crash_loop.load(tmp_path) == StartRecord()
