"""What stands still is not ready at once, then ended with its stacks, and leaves nothing behind."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.faults.noted import SETTINGS, cause, last_words, noted
from tests.support.patience import slowness
from tests.support.replica import Replica

pytestmark = pytest.mark.slow
POLLS = 2 * SETTINGS["supervise.poll"]
ANSWER = 10.0  # seconds that a poll waits for vLLM to answer
SLACK = 2.0  # seconds on a machine whose cores are taken


def stop(running: Replica, process: psutil.Process, fault: str, unready_within: float) -> None:
    """Stop a process of the replica and see it noticed and ended: within the live grace, py-spy and SIGTERM."""
    family = running.family()
    process.suspend()
    began = time.monotonic()
    running.until(lambda: not running.ready(), unready_within + SLACK, "not ready")
    unready = time.monotonic() - began
    status, _ = running.until_ended(90)
    ended = time.monotonic() - began
    assert (status, cause(running)) == (83, "hung")
    assert psutil.wait_procs(family, timeout=1)[1] == []
    assert f"process {process.pid} " in (running.run_folder / "stacks.txt").read_text()
    noted(fault, status, last_words(running), unready=unready, ended=ended)


def test_an_engine_that_stops_under_streams(ready: Replica) -> None:
    streams = [ready.stream(1500, f"Story {number}:") for number in range(8)]
    assert all(stream.began.wait(30 * slowness()) for stream in streams)
    stop(ready, ready.member("VLLM::EngineCore"), "engine-stopped-busy", SETTINGS["supervise.ready-grace"] + POLLS)


def test_an_engine_that_stops_while_idle(ready: Replica) -> None:
    wait = SETTINGS["supervise.idle-canary-every"] + SETTINGS["supervise.ready-grace"] + POLLS
    stop(ready, ready.member("VLLM::EngineCore"), "engine-stopped-idle", wait)


def test_an_api_server_that_stops(ready: Replica) -> None:
    streams = [ready.stream(1500, f"Story {number}:") for number in range(8)]
    assert all(stream.began.wait(30 * slowness()) for stream in streams)
    wait = ANSWER + SETTINGS["supervise.ready-grace"] + POLLS  # where the poll before the stop saw no stream yet
    stop(ready, ready.api_server(), "api-server-stopped", wait)
