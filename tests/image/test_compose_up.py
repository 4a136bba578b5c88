"""
`docker compose --profile demo up`: two replicas with real vLLM behind the balancer, queried, stopped one at a time and all at
once, as docs/how-to/compose.md says.

DOCKER_HOST names the engine's socket, DSV4_IMAGE the CPU image, DSV4_BALANCER_IMAGE an image of HAProxy, COMPOSE Docker Compose.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from dsv4_serve.demo import llama
from dsv4_serve.entrypoint.containers.daemon import Daemon
from tests.support import load
from tests.support.balancer import KEY
from tests.support.program import need

from .conftest import ROOT, Report, free_port
from .fleet import Fleet

pytestmark = pytest.mark.slow
OURS = {"dsv4-demo-0", "dsv4-demo-1", "dsv4-balancer"}
START, BACK = 600.0, 10.0  # seconds


@dataclass(frozen=True)
class Composed:
    """What compose made of the profile `demo`; `fleet` asks it."""

    program: str
    env: dict[str, str]
    fleet: Fleet

    def run(self, *words: str) -> None:
        """Run one command of compose, and fail with what it said."""
        argv = [self.program, "--project-directory", str(ROOT), "--profile", "demo", *words]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"

    def ask(self, key: str, path: str = "/v1/chat/completions") -> httpx.Response:
        body = {"model": "demo", "messages": [{"role": "user", "content": llama.QUESTION}]}
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(f"{self.fleet.url}{path}", json=body, headers=headers, timeout=120, trust_env=False)


@pytest.fixture(scope="module")
def composed(daemon: Daemon, images: tuple[str, str], key_file: Path) -> Iterator[Composed]:
    program = need("docker-compose", "COMPOSE")
    port = free_port()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "DOCKER_HOST": daemon.socket,
        "DSV4_CPU_IMAGE": images[0],
        "BALANCER_IMAGE": images[1],
        "API_KEY_FILE": str(key_file),
        "PORT": str(port),
        "STATUS_PORT": str(free_port()),
        "REPLICA_MAXCONN": "8",
    }
    made = Composed(program, env, Fleet(daemon, port))
    try:
        made.run("up", "--detach")
        yield made
    finally:
        made.run("down", "--timeout", "5")


def test_both_replicas_get_ready_and_are_found_by_the_balancer(composed: Composed, report: Report) -> None:
    took = composed.fleet.until_in_rotation(2, START)
    assert set(composed.fleet.daemon.containers()) >= OURS
    report(f"compose up: both in rotation after {took:.0f} s")


def test_the_answer_comes_through_the_balancer_with_the_key_only(composed: Composed) -> None:
    answer = composed.ask(KEY)
    assert answer.json()["choices"][0]["message"]["content"] == llama.ANSWER
    assert composed.ask("wrong").status_code == 401
    assert composed.ask(KEY, "/invocations").status_code == 404


def test_a_replica_that_compose_stops_fails_no_request_and_comes_back(composed: Composed, report: Report) -> None:
    with load.load(composed.fleet.url, 8, 40) as running:
        time.sleep(2)
        began = time.monotonic()
        composed.run("stop", "demo-0")
        took = time.monotonic() - began
        time.sleep(2)
    report(f"compose stop demo-0: ended after {took:.0f} s, {len(running.failed())} of {len(running.outcomes)} failed")
    assert composed.fleet.container("dsv4-demo-0").attrs["State"]["ExitCode"] == 0
    assert composed.fleet.in_rotation() == (1, 1)
    assert running.failed() == []
    composed.run("up", "--detach", "demo-0")
    report(f"compose up demo-0: in rotation after {composed.fleet.until_in_rotation(2, START):.0f} s")


def test_down_finishes_what_runs_and_leaves_the_cache_only(composed: Composed, report: Report) -> None:
    whole: list[load.Outcome] = []
    asking = threading.Thread(target=lambda: whole.extend(asyncio.run(load.at_once(composed.fleet.url, 8, 200))))
    asking.start()
    time.sleep(1)
    began = time.monotonic()
    composed.run("down")
    report(f"compose down with 8 streams: {time.monotonic() - began:.0f} s")
    asking.join(60)
    assert [one.error for one in whole] == [""] * 8
    client = composed.fleet.daemon.client
    assert not OURS & set(composed.fleet.daemon.containers())
    assert "dsv4" not in {one.name for one in client.networks.list()}
    assert "dsv4-cache" in {one.name for one in client.volumes.list()}
