"""A replica that a command starts: its ports, how its start is reported, and what remains when it is stopped."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from dsv4_serve.entrypoint import procfs
from dsv4_serve.entrypoint.client import http, local_replica
from dsv4_serve.entrypoint.client.local_replica import ReplicaEnded, ServeProcess, Stopped
from dsv4_serve.healthcheck import app
from dsv4_serve.healthcheck.state import Health


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.3", "0.0.0.0"])
def test_a_port_in_use_is_replaced_by_another(address):
    with socket.socket() as holder:
        holder.bind((address, 0))
        holder.listen()
        held = holder.getsockname()[1]
        assert local_replica.free_port(held) not in {held, 0}
    assert local_replica.free_port(held) == held


def test_the_last_message_of_dsv4_is_why_it_ended(tmp_path):
    log = tmp_path / "log"
    log.write_text("dsv4: ready\nINFO x\ndsv4: start-failed (exit status 82): it died\nroot cause: KeyError: 'x'\n")
    process = subprocess.Popen(["false"])
    process.wait()
    running = ServeProcess(process, local_replica.free_port(), local_replica.free_port(), log)
    message = (
        "the replica ended with status 1: start-failed (exit status 82): it died root cause: KeyError: 'x'. Its log is "
    )
    with pytest.raises(ReplicaEnded) as caught:
        list(running.until_ready(5, 1))
    assert str(caught.value) == f"{message}{log}"


def test_the_phase_is_reported_until_the_replica_is_given_up(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as process:
        running = ServeProcess(process, local_replica.free_port(), local_replica.free_port(), tmp_path / "log")
        phases = running.until_ready(3, 0.4)
        try:
            assert next(phases)[1] == "its health server does not answer"
            with pytest.raises(
                ReplicaEnded, match="not ready after 3 s: its health server does not answer; its log is "
            ):
                list(phases)
        finally:
            process.kill()


def test_its_progress_is_that_of_its_own_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    health = Health()
    health.enter("loading weights")
    health.percent, health.detail = 43.2, "shard 3 of 35"

    def get(url: str, _key: None) -> httpx.Response:
        scope = {
            "method": "GET",
            "path": urlsplit(url).path,
            "query_string": urlsplit(url).query.encode(),
            "headers": [],
        }
        given = app.answer(health, health.phase_began + 3, scope)
        return httpx.Response(given.status, text=str(given.body))

    monkeypatch.setattr(http, "get", get)
    with subprocess.Popen(["true"]) as process:
        running = ServeProcess(process, 1, 2, tmp_path / "log")
        assert running.progress().startswith("loading weights: 43 %, shard 3 of 35, 3 s in this phase, 3 s since start")
        health.ready_after = 12.0
        assert running.progress() == "ready"
        monkeypatch.setattr(http, "get", lambda *_: httpx.Response(200, text="[]"))
        assert running.progress() == "its health server does not answer"


@pytest.mark.parametrize("answer", ["no json", "[]", "{}", '{"phases": [], "caches": "warm"}'])
def test_a_start_reported_by_another_server_is_left_out(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(http, "get", lambda *_: httpx.Response(200, text=answer))
    assert local_replica.start_of("http://127.0.0.1:9") == {}


@pytest.mark.process
@pytest.mark.slow
def test_stop_ends_a_child_that_takes_no_notice_of_its_parents_end():
    child = "import time; time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); print(flush=True); {child}"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    (orphan,) = procfs.descendants(process.pid)
    local_replica.stop(process)
    assert process.returncode is not None
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


@pytest.mark.process
def test_a_signal_while_a_replica_is_created_leaves_none_behind(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[Any] = []
    real = subprocess.Popen

    def interrupted(*_: Any, **options: Any) -> subprocess.Popen[bytes]:
        created.append(real([sys.executable, "-c", "import time; time.sleep(60)"], **options))
        signal.raise_signal(signal.SIGTERM)
        return created[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(Stopped), local_replica.stops_raise(), local_replica.serving((), {}, tmp_path / "log"):
        pytest.fail("the signal was lost")
    assert created[0].returncode == -signal.SIGTERM
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {*local_replica.STOPS}


def test_processes_with_one_seed_draw_different_ports() -> None:
    """Tests in random order seed all their processes alike."""
    drawn = set()
    for _ in range(2):
        random.seed(1)
        drawn.add(tuple(local_replica.free_port() for _ in range(3)))
    assert len(drawn) == 2
