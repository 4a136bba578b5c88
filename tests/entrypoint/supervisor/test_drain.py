"""What a stop reports: whole only what vLLM's metrics, its log and its status agree on, and how many were cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dsv4_serve.entrypoint.client.counters import Counters
from dsv4_serve.entrypoint.supervisor.drain import Drained, judge
from dsv4_serve.entrypoint.supervisor.request_count import RequestCount, ShutdownLog
from dsv4_serve.entrypoint.vllm_log.parser import LogLine

BEGUN = "[shutdown] EngineCore: start mode=drain timeout=120s"
ABORTS = "[shutdown] EngineCore: start mode=abort timeout=0s"
STOPPED = "[shutdown] API server: engine client stopped"
DONE = "[shutdown] EngineCore: request processing complete; starting resource teardown"


def shutdown(*lines: str) -> ShutdownLog:
    log = ShutdownLog()
    for line in lines:
        log.feed(LogLine(line, "EngineCore", "INFO", "core.py:1"))
    return log


def requests(*running: int, before: int = 0, errors: int = 0, aborted: int = 0, log: ShutdownLog | None = None):
    """Readings with so many requests running; those that are gone have ended, `errors` and `aborted` of them so."""
    count = RequestCount(before, 0.0, log=log or shutdown(BEGUN))
    for number, now in enumerate(running):
        last = number == len(running) - 1
        ended = running[0] - now
        counters = Counters(running=now, finished=ended)
        count.read(replace(counters, errors=errors, aborted=aborted) if last else counters, float(number))
    return count


def ended(counted: RequestCount, status: int | None = None, **more: Any) -> Drained:
    """A drain in which vLLM was asked to end, and nothing else happened."""
    usual = {"signalled": True, "hurried": False, "quiet": 0.0, "unread": 0.0, "seconds": 0.0}
    return Drained(counted, status, **{**usual, **more})


def told(drained: Drained, allowed: float = 120.0) -> tuple[int, str]:
    reason = judge(drained, allowed, live_grace=60.0)
    return reason.cause.exit_status, reason.sentence


@pytest.mark.parametrize(
    "drained",
    [
        ended(requests(5, 2, 0), status=0),
        ended(requests(5, 2, log=shutdown(BEGUN, DONE)), status=0),  # the last answers between two readings
        ended(requests(5, 2, log=shutdown(BEGUN, BEGUN, DONE, DONE)), status=0),
        ended(requests(5, 0, aborted=1), status=0),  # a client that gave up
        ended(requests(0), status=1),
        ended(requests(0), status=-15, signalled=False),  # SIGTERM went to the whole group
        ended(requests(5, 0), hurried=True),
        ended(requests(5, 0), seconds=140.0),  # all answered, then stuck in a driver
    ],
)
def test_a_stop_in_which_every_request_was_answered_is_0(drained: Drained) -> None:
    assert told(drained) == (0, "stopped after every running request had finished.")


@pytest.mark.parametrize(
    ("drained", "status", "sentence"),
    [
        (
            ended(requests(5, 3), hurried=True),
            143,
            "3 requests were cut: a second signal came before they were answered.",
        ),
        (
            ended(requests(), hurried=True),
            143,
            "whether requests were cut is unknown: a second signal came before they were answered.",
        ),
        (ended(requests(5, 3), seconds=140.0), 143, "3 requests were cut: shutdown-timeout (120 s) expired."),
        (ended(requests(5, 1), seconds=140.0), 143, "1 request was cut: shutdown-timeout (120 s) expired."),
        (ended(requests(5, 3), 0, seconds=121.0), 143, "3 requests were cut: shutdown-timeout (120 s) expired."),
        (ended(requests(5, 3), 1, seconds=121.0), 143, "3 requests were cut: shutdown-timeout (120 s) expired."),
        (
            ended(requests(5, 3), -9, seconds=2.0),
            82,
            "3 requests were cut: vLLM's engine died while it was stopped (SIGKILL).",
        ),
        (
            ended(requests(5, 3), 0, seconds=2.0),  # the API server's status is 0 when its engine was killed
            82,
            "3 requests were cut: vLLM's engine died while it was stopped (exit status 0).",
        ),
        (
            ended(requests(5, 3, log=shutdown(BEGUN, BEGUN, DONE)), 0, seconds=2.0),
            82,
            "3 requests were cut: vLLM's engine died while it was stopped (exit status 0).",
        ),
        (
            ended(requests(5, 3, log=shutdown()), 0, seconds=2.0, unread=0.2),
            82,
            "3 requests were cut: vLLM's engine died while it was stopped (exit status 0).",
        ),
        (  # a server that closes its port and says nothing
            ended(requests(5, log=shutdown()), 0, seconds=2.0, unread=2.0),
            143,
            "whether 5 requests were cut is unknown: vLLM ended with status 0, but closed its port before, and logged no count.",
        ),
        (
            ended(requests(5, 0, errors=2), 0, seconds=2.0),
            82,
            "2 requests were cut: vLLM's engine died while it was stopped (exit status 0).",
        ),
        (
            ended(requests(5, 0), 1, seconds=2.0),
            82,
            "whether requests were cut is unknown: vLLM's engine died while it was stopped (exit status 1).",
        ),
        (
            ended(requests(0), 1, signalled=False),
            82,
            "whether requests were cut is unknown: vLLM's engine died while it was stopped (exit status 1).",
        ),
        (
            ended(requests(before=5), quiet=61.0, seconds=61.0),
            83,
            "5 requests were cut: vLLM made no progress for 61 s while it was stopped (supervise.live-grace).",
        ),
        (
            ended(requests(5, 5), quiet=61.0, seconds=61.0),
            83,
            "5 requests were cut: vLLM made no progress for 61 s while it was stopped (supervise.live-grace).",
        ),
    ],
)
def test_a_stop_that_cut_requests_says_how_many_and_why(drained: Drained, status: int, sentence: str) -> None:
    assert told(drained) == (status, sentence)


def test_an_engine_that_its_server_lost_is_dead_although_the_server_goes_on() -> None:
    lost = ended(requests(5, 3, log=shutdown(BEGUN, BEGUN, DONE, STOPPED)), seconds=2.0)
    assert told(lost) == (82, "3 requests were cut: vLLM's engine died while it was stopped.")
    assert told(replace(lost, seconds=121.0)) == (143, "3 requests were cut: shutdown-timeout (120 s) expired.")
    assert told(replace(lost, requests=requests(5, 3, log=shutdown(BEGUN, DONE, STOPPED))))[0] == 0


def test_without_a_timeout_vllm_aborts_what_runs_although_its_log_says_complete() -> None:
    cut = requests(5, 0, aborted=5, log=shutdown(ABORTS, DONE))
    assert told(ended(cut, 0, seconds=0.3), allowed=0.0)[0] == 143
    unread = requests(5, log=shutdown(ABORTS, DONE))
    assert told(ended(unread, 0, seconds=0.3), allowed=0.0) == (
        143,
        "5 requests were cut: shutdown-timeout (0 s) expired.",
    )


def test_progress_is_any_counter_that_changes_or_nothing_to_do() -> None:
    count = RequestCount(0, 1.0)
    for now, counters in [
        (2.0, Counters(running=1)),
        (3.0, Counters(running=1)),
        (4.0, Counters(running=1, generated=1)),
        (5.0, Counters(running=1, generated=1)),
    ]:
        count.read(counters, now)
    assert (count.progressed, count.read_at) == (4.0, 5.0)
    count.read(Counters(), 6.0)
    count.read(Counters(), 7.0)
    assert count.progressed == 7.0


@pytest.mark.parametrize(
    ("at_the_bound", "status"),
    [
        (ended(requests(5, 3), 1, seconds=120.0), 143),  # all of its shutdown-timeout
        (ended(requests(5, 3, log=shutdown(BEGUN, BEGUN, DONE, STOPPED)), seconds=120.0), 143),
        (ended(requests(5, 3), quiet=60.0, seconds=130.0), 143),  # all of live-grace, and no more
        (ended(requests(5, log=shutdown()), 0, unread=1.0), 82),  # its port may have been open a moment ago
        (ended(requests(5, log=shutdown()), 0, unread=1.1), 143),
    ],
)
def test_a_limit_is_passed_only_after_the_whole_of_it(at_the_bound: Drained, status: int) -> None:
    assert told(at_the_bound)[0] == status


def test_a_crash_before_the_first_reading_is_no_clean_end() -> None:
    assert told(ended(requests(), 1))[0] == 82


def test_waiting_requests_are_cut_as_running_ones_are() -> None:
    count = RequestCount(0, 0.0)
    count.read(Counters(running=2, waiting=3), 1.0)
    assert (count.open, count.cut, count.answered) == (5, 5, False)


def test_errors_and_aborts_from_before_the_stop_are_not_its_own() -> None:
    count = RequestCount(4, 0.0, log=shutdown(ABORTS))
    count.read(Counters(running=4, errors=10, aborted=20), 1.0)
    assert count.failed == 0
    count.read(Counters(errors=11, aborted=23), 2.0)
    assert (count.failed, count.cut) == (4, 4)
    count.log = shutdown(BEGUN)  # vLLM drains: aborts are those of clients
    assert count.failed == 1
