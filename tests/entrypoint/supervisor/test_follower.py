"""A node without an API server is ready when it has joined, and leaves after the first node."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsv4_serve.entrypoint import supervision_settings
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervisor import startup
from dsv4_serve.entrypoint.supervisor.follower import Follower
from dsv4_serve.entrypoint.supervisor.peers import Peers
from dsv4_serve.entrypoint.supervisor.stop_signals import StopSignals
from dsv4_serve.entrypoint.vllm_log import exit_cause
from dsv4_serve.entrypoint.vllm_log.exit_cause import ExitReason
from dsv4_serve.entrypoint.vllm_log.startup_phase import StartupProgress
from dsv4_serve.healthcheck import checks
from dsv4_serve.healthcheck.state import Health

LOST = ExitReason(exit_cause.ENGINE_DIED, "the first node is gone")


class Process(SimpleNamespace):
    """What stands in for vLLM: it only records signals."""

    def __init__(self) -> None:
        super().__init__(sent=[])

    def family(self) -> list[int]:
        return []

    def note_shared_memory(self) -> None:
        return

    def signal(self, number: int) -> None:
        self.sent.append(number)


def follower(nodes: int = 2, **supervise: float) -> Follower:
    given = {"nnodes": nodes, "node-rank": 1, "shutdown-timeout": 0}
    plan = Plan({}, {name: Setting(value, "test") for name, value in given.items()}, {})
    chosen = {f"supervise.{name.replace('_', '-')}": Setting(value, "test") for name, value in supervise.items()}
    settings = supervision_settings.read({**supervision_settings.defaults(), **chosen})
    health = Health(headless=True)
    health.enter("starting")
    session: Any = SimpleNamespace(plan=plan, settings=settings, health=health)
    process: Any = Process()
    return Follower(session, process, StartupProgress(time.monotonic()), Peers(plan))


def joined(one: Follower, *, connected: bool, phase: str, heard: bool = True) -> bool:
    if connected:
        one.peers._held[7, "10.0.0.1"] = 0
    one.progress.phase, one.progress.heard = phase, heard
    return asyncio.run(one._joined())


@pytest.mark.parametrize(
    ("connected", "phase", "heard", "ready"),
    [
        (True, "profiling", True, True),
        (True, "loading weights", True, False),
        (True, "starting", False, True),
        (False, "profiling", True, False),
        (False, "starting", False, False),
    ],
)
def test_a_node_has_joined_when_it_is_loaded_and_connected(
    connected: bool, phase: str, heard: bool, ready: bool
) -> None:
    assert joined(follower(), connected=connected, phase=phase, heard=heard) is ready


def test_a_node_that_has_joined_is_ready_and_in_time_healthy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(startup, "PAUSE", 0.01)
    one, healthy = follower(healthy_after=0.05), asyncio.Event()
    one.peers._held[7, "10.0.0.1"] = 0
    one.progress.phase = "profiling"

    async def run() -> None:
        following = asyncio.create_task(one.follow(tmp_path, healthy.set))
        await asyncio.wait_for(healthy.wait(), 5)
        following.cancel()

    asyncio.run(run())
    health = one.session.health
    assert health.phase == "ready"
    assert checks.passed(checks.run("ready", health, time.monotonic()))


def test_checks_of_answers_are_left_to_the_first_node() -> None:
    findings = checks.run("ready", Health(headless=True), time.monotonic())
    assert {name for name, finding in findings.items() if finding.problem} == {"started"}
    assert {name for name, finding in findings.items() if finding.detail == checks.ELSEWHERE} == {
        *("generation", "draft-gate", "corruption")
    }


def left(one: Follower, event: str) -> ExitReason:
    one.session.health.ready_after = 1.0

    async def run() -> ExitReason:
        loop, signals = asyncio.get_running_loop(), StopSignals()
        exited: asyncio.Future[int] = loop.create_future()
        lost: asyncio.Future[ExitReason] = loop.create_future()
        if event == "first node left":
            lost.set_result(LOST)
        elif event == "vLLM ended":
            exited.set_result(1)
        elif event == "second signal":
            signals.hurry.set()
        return await one.leave(signals, exited, lost)  # type: ignore[arg-type]

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        ("first node left", exit_cause.DRAINED),
        ("vLLM ended", exit_cause.ENGINE_DIED),
        ("second signal", exit_cause.CUT),
        ("nothing", exit_cause.CUT),
    ],
)
def test_a_node_stops_after_the_first_one(event: str, cause: exit_cause.Cause) -> None:
    one = follower(drain_wait=0.05, stop_grace=0.05)
    assert left(one, event).cause is cause
    assert one.process.sent == []  # type: ignore[attr-defined]
    assert one.session.health.draining


def test_an_engine_that_no_port_ties_to_the_first_node_is_stopped_at_once() -> None:
    one = follower(nodes=1, drain_wait=0.05, stop_grace=0.05)
    assert left(one, "vLLM ended").cause is exit_cause.DRAINED
    assert one.process.sent  # type: ignore[attr-defined]
