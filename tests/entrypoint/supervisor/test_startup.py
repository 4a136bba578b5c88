"""A start is followed until vLLM answers: what counts as progress, and what is shown of it. No process is started."""

from __future__ import annotations

import asyncio
import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsv4_serve.entrypoint import procfs
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervisor import startup
from dsv4_serve.entrypoint.vllm_log import exit_cause
from dsv4_serve.entrypoint.vllm_log.startup_phase import StartupProgress
from dsv4_serve.healthcheck.state import Health

MIB = 1 << 20


class Start:
    """A start in a phase, with a clock that each pause moves by a second; it is up after so many looks."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, phase: str, model: str = "owner/model", **limits: float
    ) -> None:
        self.now, self.looks = 1000.0, 0
        self.health = Health(started=1000.0)
        self.health.enter(phase)
        self.progress = StartupProgress(1000.0, phase=phase, heard=True)
        stall = {name.replace("_", "-"): seconds for name, seconds in limits.items()}
        self.session: Any = SimpleNamespace(
            health=self.health,
            settings=SimpleNamespace(supervise=SimpleNamespace(stall=stall)),
            plan=Plan({}, {"model": Setting(model, "test")}, {}),
            client=SimpleNamespace(healthy=self.healthy),
            report_every=30.0,
        )
        self.process: Any = SimpleNamespace(family=lambda: [7, 8])
        self.read, self.arrives, self.held = 0.0, 0.0, 0.0  # bytes a second
        self.alive, self.answers = False, True
        self.seen: list[tuple[float, float | None, float | None, float | None]] = []
        self.held_at: list[float] = []

        async def pause(seconds: float) -> None:
            assert seconds == startup.PAUSE
            health = self.health
            self.seen.append((self.now, health.rate, health.percent, health.stall_limit))
            self.now += 1.0

        async def at_once(function: Any, *arguments: Any) -> Any:
            return function(*arguments)

        def held(folders: list[Path]) -> float:
            assert folders == [Path("cache")]
            self.held_at.append(self.now)
            return self.held * (self.now - 1000.0)

        monkeypatch.setattr(startup.asyncio, "sleep", pause)
        monkeypatch.setattr(startup.asyncio, "to_thread", at_once)
        monkeypatch.setattr(startup.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(startup, "loaded_bytes", lambda pids: self.read * (self.now - 1000.0) * (pids == [7, 8]))
        monkeypatch.setattr(startup, "arrived", lambda pids: self.arrives * (self.now - 1000.0) * (pids == [7, 8]))
        monkeypatch.setattr(startup, "held", held)
        monkeypatch.setattr(startup.SignsOfLife, "seen", lambda *_: self.alive)

    async def healthy(self) -> bool:
        return self.answers

    def until(self, looks: int) -> Any:
        async def up() -> bool:
            self.looks += 1
            return self.looks > looks

        return asyncio.run(startup.until(up, self.session, self.process, self.progress, Path("cache")))


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda phase, **more: Start(monkeypatch, phase, **more)


def test_it_ends_when_vllm_answers(start) -> None:
    begun = start("profiling", profiling=5.0)
    assert begun.until(3) is None
    assert [now for now, *_ in begun.seen] == [1000.0, 1001.0, 1002.0]
    assert begun.seen[0] == (1000.0, None, None, 5.0)


def test_a_phase_without_progress_is_given_up_after_its_limit(start) -> None:
    begun = start("profiling", profiling=5.0)
    reason = begun.until(100)
    assert reason.cause is exit_cause.STALLED
    assert reason.sentence.startswith("profiling: no progress for 5 s (limit 5 s")
    assert f"{begun.health.stalled}." == reason.sentence
    assert begun.now == 1005.0


def test_a_phase_of_two_words_has_its_limit_too(start) -> None:
    assert (
        start("capturing graphs", capturing_graphs=2.0).until(100).sentence.startswith("capturing graphs: no progress")
    )


@pytest.mark.parametrize(("rate", "lasts"), [(MIB + 1, True), (MIB, False), (0, False)])
def test_bytes_that_are_read_are_progress_while_weights_load(start, rate: int, lasts: bool) -> None:
    begun = start("loading weights", loading_weights=5.0)
    begun.read = rate
    assert (begun.until(30) is None) is lasts
    assert begun.seen[3][1] == rate


def test_bytes_that_are_read_are_none_in_another_phase(start) -> None:
    begun = start("compiling kernels", compiling_kernels=5.0)
    begun.read = begun.arrives = 100 * MIB
    assert begun.until(30) is not None
    assert begun.seen[3][1] is None


@pytest.mark.parametrize("phase", ["starting", "loading weights"])
@pytest.mark.parametrize(("rate", "lasts"), [(MIB + 1, True), (MIB, False)])
def test_what_arrives_over_the_network_is_progress(start, phase: str, rate: int, lasts: bool) -> None:
    begun = start(phase, **{phase.replace(" ", "_"): 5.0})
    begun.arrives = rate
    assert (begun.until(30) is None) is lasts
    if lasts:
        assert begun.seen[3][1] == rate


def test_what_comes_into_the_cache_is_progress_and_is_looked_at_every_two_seconds(start) -> None:
    begun = start("loading weights", loading_weights=5.0)
    begun.held, begun.read = 3 * MIB, 9 * MIB
    assert begun.until(8) is None
    assert begun.held_at == [1000.0, 1002.0, 1004.0, 1006.0]
    assert begun.seen[-1][1] == 9 * MIB  # the higher of both
    begun = start("starting", starting=5.0)
    begun.held = 3 * MIB
    assert begun.until(30) is None
    assert begun.seen[-1][1] == 3 * MIB


def test_a_silent_log_is_judged_by_signs_of_life_and_another_is_not(start) -> None:
    for heard, alive, lasts in ((False, True, True), (False, False, False), (True, True, False)):
        begun = start("profiling", profiling=5.0)
        begun.progress.heard, begun.alive = heard, alive
        assert (begun.until(30) is None) is lasts


def test_signs_of_life_last_as_long_as_all_limits_together(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = Start(monkeypatch, "profiling", profiling=5.0, starting=7.0)
    given: list[float] = []

    class Silent:
        def __init__(self, patience: float) -> None:
            given.append(patience)

        def seen(self, *_: object) -> bool:
            return False

    monkeypatch.setattr(startup, "SignsOfLife", Silent)
    begun.until(1)
    assert given == [12.0]


def test_the_share_of_the_weights_is_counted_where_the_log_has_none(start, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(startup.identify, "weights_bytes", lambda folder: 100 * MIB if folder == tmp_path else 0)
    begun = start("loading weights", model=str(tmp_path), loading_weights=50.0)
    begun.read = 10 * MIB
    begun.until(4)
    assert [percent for *_, percent, _ in begun.seen] == [0.0, 10.0, 20.0, 30.0]
    begun = start("loading weights", model=str(tmp_path), loading_weights=50.0)
    begun.read, begun.progress.percent, begun.health.percent = 10 * MIB, 42.0, 42.0
    begun.until(4)
    assert begun.seen[-1][2] == 42.0
    begun = start("loading weights", loading_weights=50.0)  # a name of the Hub
    begun.read = 10 * MIB
    begun.until(4)
    assert begun.seen[-1][2] is None


def test_vllm_is_up_when_a_process_of_ours_listens_and_its_health_route_answers(monkeypatch) -> None:
    begun = Start(monkeypatch, "warming up", warming_up=3.0)
    begun.session.plan = Plan({}, {"model": Setting("m", "test"), "port": Setting(18000, "test")}, {})
    listening: set[tuple[int, int]] = set()
    monkeypatch.setattr(procfs, "listens", lambda pid, port: (pid, port) in listening)

    def up() -> Any:
        return asyncio.run(startup.until_up(begun.session, begun.process, begun.progress, Path("cache")))

    assert up() is not None  # another server may answer there
    begun.now, begun.progress.progressed = 1000.0, 1000.0
    listening.add((8, 18000))
    assert up() is None
    begun.answers = False
    assert up() is not None


def test_in_a_pipe_a_long_phase_is_a_line_every_half_minute_with_all_figures(
    start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    loading = start("loading weights", loading_weights=300.0)
    loading.health.phase_began = 1000.0
    loading.health.last_start, loading.health.detail = {"loading weights": 90.0}, "shard 3 of 35"
    loading.read = 300 * MIB
    loading.until(70)
    assert [record.getMessage() for record in caplog.records] == [
        f"start: loading weights: at 0.3 GiB/s, shard 3 of 35, {n} s in this phase, {n} s since start, about {90 - n} s left"
        for n in (30, 60)
    ]
    caplog.clear()
    loading.session.report_every = math.inf  # a terminal shows a line of its own
    loading.looks = 0
    loading.until(70)
    assert not caplog.records
