"""Each phase of a start is one line of the log, with the seconds left where the last start gives them."""

from __future__ import annotations

import logging
import time

import pytest

from dsv4_serve.entrypoint.supervisor import supervisor
from dsv4_serve.entrypoint.vllm_log.startup_phase import StartupProgress
from dsv4_serve.healthcheck.state import Health


def lines(caplog: pytest.LogCaptureFixture, health: Health, *phases: str) -> list[str]:
    caplog.set_level(logging.INFO)
    progress = StartupProgress(0.0)
    for phase in phases:
        progress.enter(phase, 0.0)
        supervisor._show_progress(health, progress)
    return [record.getMessage() for record in caplog.records]


def test_a_phase_is_logged_once_and_without_a_guess(caplog: pytest.LogCaptureFixture) -> None:
    health = Health(started=time.monotonic() - 64, phase="starting")
    said = lines(caplog, health, "starting", "loading weights", "loading weights", "profiling")
    assert said == ["start: loading weights, 64 s since start", "start: profiling, 64 s since start"]


def test_the_last_start_of_the_plan_gives_the_seconds_left(caplog: pytest.LogCaptureFixture) -> None:
    health = Health(started=time.monotonic() - 64, phase="starting")
    health.last_start = {"loading weights": 20.0, "profiling": 8.0}
    assert lines(caplog, health, "loading weights") == ["start: loading weights, 64 s since start, about 28 s left"]
