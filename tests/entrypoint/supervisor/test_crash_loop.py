"""The crash-loop breaker: what it remembers, and how long it makes a start wait."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_a_cut_stop_and_one_before_it_was_ready_leave_the_count_as_it_is() -> None:
    failing = StartRecord("plan", starts=3, failures=2)
    assert failing.end("cut", 1.0, failed=None) == StartRecord("plan", 3, 2, 1.0, "cut")


def test_the_record_outlives_the_process(tmp_path: Path) -> None:
    crash_loop.save(tmp_path, StartRecord("plan", 2, 1, 5.0, "hung"))
    assert crash_loop.load(tmp_path) == StartRecord("plan", 2, 1, 5.0, "hung")
    assert [file.name for file in tmp_path.iterdir()] == ["starts.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "\x00",
        pytest.param("[" * 100_000, id="deep"),
        '{"plan": 1}',
        '{"plan": "p", "starts": "many"}',
        '{"plan": "p", "failures": -1}',
        pytest.param('{"plan": "p", "failures": 1' + "0" * 400 + "}", id="huge"),
        '{"plan": "p", "ended": []}',
        pytest.param('"' + "x" * (1 << 20) + '"', id="long"),
    ],
)
def test_a_record_that_cannot_be_read_counts_as_none_and_is_noted(tmp_path: Path, caplog, text: str) -> None:
    caplog.set_level("INFO")
    (tmp_path / crash_loop.FILE).write_text(text)
    assert crash_loop.load(tmp_path) == StartRecord()
    (message,) = caplog.messages
    assert message.startswith(f"note: {tmp_path / crash_loop.FILE} is ignored: ")
    assert "\n" not in message


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_pipe_a_folder_and_a_device_are_no_record_and_do_not_block(tmp_path: Path, caplog, make) -> None:
    caplog.set_level("INFO")
    make(tmp_path / crash_loop.FILE)
    assert crash_loop.load(tmp_path) == StartRecord()
    assert "is ignored: " in caplog.messages[0]


def test_a_missing_record_is_not_noted(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    assert crash_loop.load(tmp_path) == StartRecord()
    assert caplog.messages == []


def test_the_first_start_of_all_follows_no_failure() -> None:
    assert StartRecord().begin("") == StartRecord("", starts=1, failures=0)


def test_a_start_after_a_recorded_end_keeps_the_count_and_the_cause() -> None:
    hung = StartRecord("plan", starts=2, failures=2).end("hung", 5.0, failed=True)
    assert hung == StartRecord("plan", 2, 3, 5.0, "hung")
    assert hung.begin("plan") == StartRecord("plan", 3, 3, 0.0, "hung")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 2**40))
def test_every_record_is_read_as_it_was_written(starts: int, failures: int, ended: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = StartRecord("plan", starts, failures, ended, "hung")
        crash_loop.save(Path(folder), written)
        assert crash_loop.load(Path(folder)) == written


@pytest.mark.parametrize("count", [-1, 1_000_001])
def test_a_count_that_no_host_reaches_makes_no_record(tmp_path: Path, count: int) -> None:
    crash_loop.save(tmp_path, StartRecord("plan", starts=1, failures=1_000_000))
    assert crash_loop.load(tmp_path).failures == 1_000_000
    crash_loop.save(tmp_path, StartRecord("plan", starts=1, failures=count))
    assert crash_loop.load(tmp_path) == StartRecord()


def test_no_number_of_failures_is_too_many_for_the_wait() -> None:
    assert crash_loop.backoff(1_000_000, 10, 900) == 900
