"""The crash-loop breaker: what it remembers, and how long it waits."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.errors import HostError
from dsv4_serve.entrypoint.supervisor import crash_loop
from dsv4_serve.entrypoint.supervisor.crash_loop import Record

HOUR = 3600.0


def test_one_failure_is_answered_with_a_start_at_once_and_each_further_one_waits_twice_as_long() -> None:
    waits = [crash_loop.hold(failures, 10, 900) for failures in range(10)]
    assert waits == [0, 0, 10, 20, 40, 80, 160, 320, 640, 900]


def test_a_plan_that_dies_after_a_minute_is_started_at_most_thirteen_times_in_an_hour() -> None:
    """35 restarts brought a host down: eugr/spark-vllm-docker#257."""
    remembered, clock, starts = Record(), 0.0, 0
    while clock < HOUR:
        remembered = remembered.begin("plan")
        clock += crash_loop.hold(remembered.failures, 10, 900) + 60
        starts += 1
        remembered = remembered.end("hung", clock, failed=True)
    assert starts <= 13


def test_a_changed_plan_starts_at_once() -> None:
    failed = Record("old", starts=7, failures=6, ended=1.0, cause="hung")
    assert failed.begin("new") == Record("new", starts=1)


def test_a_start_that_ended_without_a_word_counts_as_a_failure() -> None:
    killed = Record().begin("plan")
    again = killed.begin("plan")
    assert (again.starts, again.failures, again.cause) == (2, 1, "ended without a word")


def test_a_good_end_and_a_healthy_hour_close_the_row_of_failures() -> None:
    failing = Record("plan", starts=3, failures=2)
    assert failing.end("drained", 1.0, failed=False).failures == 0
    assert failing.healthy().failures == 0


def test_the_record_outlives_the_process(tmp_path: Path) -> None:
    crash_loop.save(tmp_path, Record("plan", 2, 1, 5.0, "hung"))
    assert crash_loop.load(tmp_path) == Record("plan", 2, 1, 5.0, "hung")
    assert [file.name for file in tmp_path.iterdir()] == ["starts.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plans": 1}', "\x00"])
def test_a_record_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / crash_loop.FILE).write_text(text)
    assert crash_loop.load(tmp_path) == Record()


def test_no_secret_can_be_read_from_a_fingerprint() -> None:
    assert len(crash_loop.fingerprint("a", {"b": 1})) == 16
    assert crash_loop.fingerprint("a", {"b": 1}) != crash_loop.fingerprint("a", {"b": 2})


def hold_it(folder: Path, held: multiprocessing.Event, done: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    with crash_loop.owned(folder):
        held.set()
        done.wait(20)


def test_two_servers_cannot_share_a_run_directory(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    held, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold_it, args=(tmp_path, held, done))
    other.start()
    assert held.wait(20)
    with pytest.raises(HostError, match="in use by another `dsv4 serve`; set DSV4_RUN_DIR"), crash_loop.owned(tmp_path):
        pass
    done.set()
    other.join(10)
    with crash_loop.owned(tmp_path):
        pass


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="cannot be written"), crash_loop.owned(tmp_path / "file" / "run"):
        pass
