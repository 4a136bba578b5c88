"""A process that is killed ends the replica, which says who was killed, and leaves nothing behind."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.faults.noted import cause, last_words, noted
from tests.support.patience import slowness
from tests.support.replica import Late, Replica, leaked_memory

pytestmark = pytest.mark.slow


def kill(running: Replica, process: psutil.Process, fault: str) -> None:
    before, family = leaked_memory(), running.family()
    process.kill()
    began = time.monotonic()
    running.until(lambda: not running.ready(), 30, "not ready")
    unready = time.monotonic() - began
    status, _ = running.until_ended(60)
    ended = time.monotonic() - began
    assert (status, cause(running)) == (82, "engine-died")
    assert psutil.wait_procs(family, timeout=1)[1] == []
    assert running.files() == []
    assert leaked_memory() <= before
    noted(fault, status, last_words(running), unready=unready, ended=ended)


@pytest.mark.everyday
def test_an_engine_that_is_killed(ready: Replica) -> None:
    kill(ready, ready.member("VLLM::EngineCore"), "engine-killed")


def test_a_worker_that_is_killed(ready: Replica) -> None:
    kill(ready, ready.member("VLLM::Worker"), "worker-killed")


def test_an_api_server_that_is_killed(ready: Replica) -> None:
    kill(ready, ready.api_server(), "api-server-killed")
    assert "SIGKILL" in last_words(ready)


def test_a_supervisor_that_is_killed_takes_the_engine_along(ready: Replica) -> None:
    family = ready.family()
    ready.process.kill()
    began = time.monotonic()
    left = psutil.wait_procs(family, timeout=60 * slowness())[1]
    if left:
        raise Late(f"{left} outlive the supervisor\n{ready.log_text()[-2000:]}")
    noted("supervisor-killed", 137, "nothing: it was killed", ended=time.monotonic() - began)
