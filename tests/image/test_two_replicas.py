"""
Two replicas with real vLLM behind the balancer, in containers as `dsv4 up` makes them: what clients notice when one is
killed, hangs, drains or comes back, under load.

DOCKER_HOST names the engine's socket, DSV4_IMAGE the CPU image, DSV4_BALANCER_IMAGE an image of HAProxy.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from dsv4_serve.entrypoint.containers import deployment as make
from dsv4_serve.entrypoint.containers.containers import name_of
from dsv4_serve.entrypoint.containers.daemon import Daemon
from dsv4_serve.entrypoint.containers.down import down
from dsv4_serve.entrypoint.containers.up import up
from dsv4_serve.entrypoint.supervision_settings import Supervise
from tests.support import load
from tests.support.balancer import KEY

from .conftest import Report, free_port
from .fleet import Fleet

pytestmark = pytest.mark.slow
CLIENTS, TOKENS = 8, 40
# Seconds until a hung replica leaves rotation (its grace, then polls and HAProxy's checks) and until a ready one enters it.
OUT, BACK = Supervise().ready_grace + 15.0, 10.0
START = 600.0
LIVE_GRACE = 60  # seconds, half of the default: the one setting that is not as shipped


@pytest.fixture(scope="module")
def fleet(daemon: Daemon, images: tuple[str, str], key_file: Path) -> Iterator[Fleet]:
    deployment = make.Deployment(
        groups=((), ()),
        key_file=key_file,
        image=images[0],
        balancer_image=images[1],
        env={"PROFILE": "demo", "DSV4_SUPERVISE_LIVE_GRACE": str(LIVE_GRACE)},
        port=free_port(),
        requests=4,
    )
    try:
        up(daemon, deployment, lambda line: None)
        made = Fleet(daemon, deployment.port)
        made.until_in_rotation(2, BACK)
        yield made
    finally:
        down(daemon, lambda line: None)


def ask(fleet: Fleet, key: str = KEY, path: str = "/v1/completions", **body: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{fleet.url}{path}", json=body, headers=headers, timeout=120, trust_env=False)


def start_again(fleet: Fleet, report: Report) -> None:
    """Start a container that ended, and see it in rotation soon after it is ready."""
    fleet.container(name_of(0)).start()
    ready = fleet.until(lambda: fleet.ready(0), START, "ready again")
    back = fleet.until_in_rotation(2, BACK)
    report("started again", ready=ready, in_rotation_after_ready=back)


def test_the_key_is_required_and_closed_routes_are_404(fleet: Fleet) -> None:
    assert ask(fleet, prompt="a", max_tokens=1).status_code == 200
    assert ask(fleet, key="wrong", prompt="a", max_tokens=1).status_code == 401
    for path in ("/invocations", "/metrics", "/health", "/v1/load_lora_adapter"):
        assert ask(fleet, path=path, prompt="a").status_code == 404


def test_200_streams_at_once_are_all_whole(fleet: Fleet, report: Report) -> None:
    began = time.monotonic()
    outcomes = asyncio.run(load.at_once(fleet.url, 200, TOKENS))
    report(f"200 streams of {TOKENS} tokens", took=time.monotonic() - began)
    assert [outcome.error for outcome in outcomes if outcome.error] == []


def test_a_prompt_of_10_mb_is_refused_with_its_reason_and_harms_nobody(fleet: Fleet, report: Report) -> None:
    """The model of the demo takes 131,072 tokens."""
    with load.load(fleet.url, CLIENTS, TOKENS) as running:
        time.sleep(1)
        began = time.monotonic()
        answers = [ask(fleet, prompt="x" * 10_000_000, max_tokens=1) for _ in range(4)]
        report("4 prompts of 10 MB", took=time.monotonic() - began)
    assert {answer.status_code for answer in answers} == {400}
    assert "maximum context length is 131072 tokens" in answers[0].json()["error"]["message"]
    assert running.failed() == []


def test_slow_clients_are_served_while_others_go_on(fleet: Fleet, report: Report) -> None:
    with load.load(fleet.url, CLIENTS, TOKENS) as running, ThreadPoolExecutor(16) as clients:
        began = time.monotonic()
        answers = list(clients.map(lambda _: load.slow(fleet.port, TOKENS), range(16)))
        report(f"16 slow clients beside {len(running.outcomes)} requests", took=time.monotonic() - began)
    assert all(answer.startswith(b"HTTP/1.1 200 ") and b"[DONE]" in answer for answer in answers)
    assert running.failed() == []


def test_an_engine_that_hangs_is_out_of_rotation_and_comes_back_when_it_goes_on(fleet: Fleet, report: Report) -> None:
    with load.load(fleet.url, CLIENTS, TOKENS) as running:
        time.sleep(2)
        fleet.signal_engine(0, signal.SIGSTOP)
        out = fleet.until_in_rotation(1, OUT)
        new = time.monotonic()
        time.sleep(5)
        resumed = time.monotonic()
        fleet.signal_engine(0, signal.SIGCONT)
        back = fleet.until_in_rotation(2, BACK)
        time.sleep(2)
    report(f"engine hangs, {len(running.outcomes)} requests", out_of_rotation=out, back_after_going_on=back)
    assert len([one for one in running.outcomes if one.began > new and one.ended < resumed]) > 0
    assert running.failed() == []


def test_a_drain_fails_no_request(fleet: Fleet, report: Report) -> None:
    leaving = fleet.container(name_of(0))
    with load.load(fleet.url, CLIENTS, TOKENS) as running:
        time.sleep(2)
        began = time.monotonic()
        stopping = threading.Thread(target=leaving.stop, kwargs={"timeout": 150})
        stopping.start()
        out = fleet.until_in_rotation(1, 5)
        stopping.join()
        ended = time.monotonic() - began
        time.sleep(2)
    report(f"drain, {len(running.outcomes)} requests", out_of_rotation=out, ended=ended)
    assert fleet.container(name_of(0)).attrs["State"]["ExitCode"] == 0
    assert running.failed() == []
    assert len(running.outcomes) > CLIENTS
    start_again(fleet, report)


def test_a_kill_fails_only_what_was_in_flight(fleet: Fleet, report: Report) -> None:
    before = fleet.container(name_of(0)).attrs
    with load.load(fleet.url, CLIENTS, TOKENS) as running:
        time.sleep(2)
        began = time.monotonic()
        fleet.kill(0)
        silent = time.monotonic()
        fleet.until_in_rotation(1, OUT)
        out = time.monotonic() - began
        time.sleep(10)
    failed = running.failed()
    exited = time.monotonic() - began + fleet.until_exited(0)
    figures = {"silent": silent - began, "out_of_rotation": out, "exited": exited}
    report(f"kill, {len(failed)} of {len(running.outcomes)} requests failed", **figures)
    assert [one.error for one in failed if one.began > silent] == []
    assert len(failed) <= CLIENTS
    after = fleet.container(name_of(0)).attrs  # who kills a container wants it to end: neither engine starts it again
    assert (after["State"]["StartedAt"], after["RestartCount"]) == (
        before["State"]["StartedAt"],
        before["RestartCount"],
    )
    start_again(fleet, report)


def test_an_engine_that_never_goes_on_is_ended_and_its_replica_comes_back_by_itself(
    fleet: Fleet, report: Report
) -> None:
    before = fleet.container(name_of(0)).attrs["State"]["StartedAt"]
    with load.load(fleet.url, CLIENTS, TOKENS) as running:
        time.sleep(2)
        stopped = time.monotonic()
        fleet.signal_engine(0, signal.SIGSTOP)
        out = fleet.until_in_rotation(1, OUT)
        fleet.until(lambda: fleet.container(name_of(0)).attrs["State"]["StartedAt"] != before, 300, "started over")
        over = time.monotonic() - stopped
    ready = fleet.until(lambda: fleet.ready(0), START, "ready again")
    back = fleet.until_in_rotation(2, BACK)
    failed = running.failed()
    figures = {"out_of_rotation": out, "started_over": over, "ready": over + ready, "in_rotation_after_ready": back}
    report(f"engine hangs for ever, {len(failed)} of {len(running.outcomes)} requests failed", **figures)
    assert [one.error for one in failed if one.began > stopped + out] == []
    assert len(failed) <= CLIENTS
    assert b"dsv4: hung (exit status 83)" in fleet.container(name_of(0)).logs()
