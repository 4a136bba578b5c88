"""
Stops of a real `dsv4 serve`: 0 only when every request was answered, whatever signal, crash or hang comes between.

The engine is the stand-in; tests/faults stops real vLLM.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.support.patience import slowness
from tests.support.replica import Replica, Start, Stream, free_port

pytestmark = [pytest.mark.process, pytest.mark.slow]
STREAMS = 5


def busy(running: Replica) -> list[Stream]:
    """Streams that run for minutes."""
    running.until_ready(60)
    streams = [running.stream(600) for _ in range(STREAMS)]
    assert all(stream.began.wait(60 * slowness()) for stream in streams)
    return streams


def draining(running: Replica) -> None:
    running.until(lambda: "start mode=drain" in running.log_text(), 20, "vLLM drains")


def ended(running: Replica, seconds: float = 30) -> tuple[int, str, int]:
    """The status, the sentence, and the failures on record."""
    status, _ = running.until_ended(seconds)
    record = json.loads((running.run_folder / "starts.json").read_text())
    assert running.last_exit()["status"] == status
    return status, running.last_exit()["sentence"], record["failures"]


def test_a_second_signal_ends_the_drain_and_says_what_was_cut(start: Start) -> None:
    with start(STAND_IN_SECONDS="0.5") as running:
        busy(running)
        running.stop()
        draining(running)
        running.stop()
        began = time.monotonic()
        assert ended(running)[:2] == (143, "5 requests were cut: a second signal came before they were answered.")
        assert time.monotonic() - began < 5 * slowness()


def test_a_second_signal_while_the_balancer_notices_is_no_drain_either(start: Start) -> None:
    with start(STAND_IN_SECONDS="0.5", DSV4_SUPERVISE_DRAIN_WAIT="60") as running:
        busy(running)
        running.stop()
        running.until(lambda: running.ask("/readyz/accepting")[0] == 503, 10, "not ready")
        running.stop()
        assert ended(running)[:2] == (143, "5 requests were cut: a second signal came before they were answered.")


def test_a_second_signal_shortens_the_end_of_an_engine_that_ignores_sigterm(start: Start) -> None:
    with start("ignores-sigterm", DSV4_SUPERVISE_STOP_GRACE="300") as running:
        running.until_ready(60)
        pids = running.stand_in_pids()
        running.stop()
        running.until(lambda: running.ask("/readyz/accepting")[0] == 503, 10, "not ready")
        running.stop()
        assert ended(running)[0] == 0  # nothing ran
        assert not any(runs(pid) for pid in pids)


def test_an_engine_that_is_killed_while_it_drains_cut_its_requests(start: Start) -> None:
    with start(STAND_IN_SECONDS="0.5") as running:
        busy(running)
        running.stop()
        draining(running)
        os.kill(running.stand_in_pids()[0], signal.SIGKILL)
        status, sentence, failures = ended(running)
        assert (status, failures) == (82, 1)
        assert sentence == "5 requests were cut: vLLM's engine died while it was stopped (SIGKILL)."


def test_a_server_that_ends_with_0_although_it_cut_requests_is_not_believed(start: Start) -> None:
    with start("cuts", STAND_IN_SECONDS="0.5") as running:
        busy(running)
        running.stop()
        assert ended(running)[:2] == (
            82,
            "5 requests were cut: vLLM's engine died while it was stopped (exit status 0).",
        )


def test_a_server_that_hangs_while_it_drains_is_ended_as_hung_with_its_stacks(start: Start) -> None:
    with start(STAND_IN_SECONDS="0.5", DSV4_SUPERVISE_LIVE_GRACE="4") as running:
        busy(running)
        running.stop()
        draining(running)
        psutil.Process(running.stand_in_pids()[0]).suspend()
        status, sentence, _ = ended(running, 60)
        assert status == 83
        assert sentence.startswith("5 requests were cut: vLLM made no progress for ")
        assert (running.run_folder / "stacks.txt").exists()


def test_a_server_that_hung_before_sigterm_is_judged_by_the_last_reading(start: Start) -> None:
    with start(STAND_IN_SECONDS="0.2", DSV4_SUPERVISE_LIVE_GRACE="8") as running:
        busy(running)
        time.sleep(2 * slowness(2))  # some polls
        psutil.Process(running.stand_in_pids()[0]).suspend()
        running.stop()
        assert ended(running, 90)[1].startswith("5 requests were cut: vLLM made no progress for ")


def test_requests_that_outlast_the_shutdown_timeout_are_counted(start: Start) -> None:
    with start("", "--shutdown-timeout", "2", STAND_IN_SECONDS="0.5", STAND_IN_SHUTDOWN="2") as running:
        busy(running)
        running.stop()
        assert ended(running)[:2] == (143, "5 requests were cut: shutdown-timeout (2 s) expired.")


def test_only_a_clean_drain_clears_the_failures_on_record(start: Start) -> None:
    again = {"STAND_IN_SECONDS": "0.5", "PORT": str(free_port())}
    with start(**again) as running:
        running.until_ready(60)
        os.kill(running.stand_in_pids()[0], signal.SIGKILL)
        assert ended(running)[2] == 1
    with start(**again) as running:
        busy(running)
        running.stop()
        draining(running)
        running.stop()
        status, _, failures = ended(running)
        assert (status, failures) == (143, 1)
    with start(**again) as running:
        running.until(lambda: running.ask("/livez")[0] == 200, 30, "live")
        running.stop()  # during the start
        status, _, failures = ended(running)
        assert (status, failures) == (0, 1)
    with start(**again) as running:
        running.until_ready(60)
        running.stop()
        status, _, failures = ended(running)
        assert (status, failures) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGRTMIN + 3])
def test_other_signals_end_nothing_and_are_noted(start: Start, number: int) -> None:
    with start("stalls") as running:
        running.until(lambda: "stand-in" in running.log_text(), 30, "started")
        running.stop(number)
        running.until(lambda: "is ignored; SIGTERM stops the replica" in running.log_text(), 20, "noted")
        assert running.ask("/livez")[0] == 200
        running.stop()
        assert ended(running)[0] == 0


STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""All of them are handled once our first line has run; Python itself handles SIGINT before it."""


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_before_the_imports_are_done_ends_the_start_with_0(start: Start, number: int) -> None:
    for wait in (0.2, 0.6, 1.2):
        with start("stalls") as running:
            process = psutil.Process(running.process.pid)
            running.until(lambda of=process: all(handles(of, one) for one in STOPS), 30, "its first line")
            time.sleep(wait)
            running.stop(number)
            assert running.until_ended(60)[0] == 0
            assert running.last_exit()["cause"] == "drained"
            assert "Traceback" not in running.log_text()


def handles(process: psutil.Process, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught & 1 << (number - 1))


def test_a_damaged_record_is_noted_and_the_start_goes_on(start: Start) -> None:
    with start("key-error") as running:
        running.until_ended(60)
        (running.run_folder / "starts.json").unlink()
        os.mkfifo(running.run_folder / "starts.json")
    with start() as running:
        running.until_ready(60)
        assert "starts.json is ignored: it is not a regular file" in running.log_text()
        assert "Traceback" not in "".join(running.messages())
        assert json.loads((running.run_folder / "starts.json").read_text())["starts"] == 1


def runs(pid: int) -> bool:
    """Whether it is there and no zombie, which only its parent can remove."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_killed_supervisor_leaves_nothing_to_the_next_start(start: Start) -> None:
    with start("ignores-sigterm") as running:
        running.until_ready(60)
        pids = running.stand_in_pids()
        recorded = running.run_folder / "processes.json"
        running.until(lambda: all(str(pid) in recorded.read_text() for pid in pids), 30, "recorded")
        folder = Path(json.loads(recorded.read_text())["folder"])
        assert folder.is_dir()
        running.process.kill()
        running.process.wait()
        time.sleep(1)
        assert all(psutil.pid_exists(pid) for pid in pids)  # it ignores SIGTERM, and its child is a daemon
        with start(PORT=str(running.port)) as again:
            again.until_ready(90)
            assert not any(runs(pid) for pid in pids)
            assert not folder.exists()
            assert any("that an earlier `dsv4 serve` left behind" in line for line in again.messages())
            again.stop()
            assert again.until_ended(30)[0] == 0
        assert not recorded.exists()
