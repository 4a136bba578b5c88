"""Faults: an engine that is stopped while it works is seen, and the replica leaves rotation in time."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

import psutil

from ... import served_plan
from ...client import http
from ...client.errors import RequestFailed
from ...procfs import descendants
from ...smoke.outcome import Outcome, failed, inconclusive, passed
from .. import known
from ..box import Box
from ..small import SmallReplica

STEP = 0.25  # seconds
SLACK = 10.0
"""Seconds beyond the plan's grace and two polls."""
BEGIN = 60.0  # seconds for the first steps of the streams
_ENGINES = ("VLLM::Worker_TP", "VLLM::Worker", "VLLM::EngineCore")
"""Titles of vLLM's processes; where there are workers, one of them stops and leaves the others in a collective."""


def faults(box: Box, replica: SmallReplica) -> Outcome:
    """A worker gets SIGSTOP while requests run; `/readyz` has to say no within the plan's grace."""
    engine = engine_of(descendants(replica.started.process.pid))
    if engine is None:
        return inconclusive("no process of the engine was found", "report it: dsv4 bundle --support")
    allowed = limit(box)
    if box.remaining < allowed + 5:
        return inconclusive(f"it takes up to {allowed:.0f} s, more than is left", "raise --minutes")
    model, before = replica.checkpoint, replica.asker.counters(box.remaining)
    length = min(2048, (box.context or 4096) - 64)
    questions = known.questions(model.answer, [32] * box.sizes.streams, [length], model.reach.queries.values())
    running = [replica.asker.begin(question) for question in questions]
    title = engine.name()
    try:
        _until_busy(replica, before.generated)
        engine.send_signal(signal.SIGSTOP)
        seconds = _until_not_ready(str(replica.started.endpoint.health), allowed)
    finally:
        engine.send_signal(signal.SIGCONT)
        for request in running:
            request.cancel()
    return judged(title, seconds, allowed)


def judged(title: str, seconds: float | None, allowed: float) -> Outcome:
    """Return the outcome: after how many seconds it was not ready, None if it stayed so."""
    figures = {"stopped": title, "not_ready_after": seconds and round(seconds, 1), "allowed": allowed}
    if seconds is None:
        return failed(
            f"{title} was stopped, and /readyz still answered 200 after {allowed:.0f} s",
            "a hung engine would keep its traffic, which is an error of dsv4",
            **figures,
        )
    return passed(f"{title} was stopped while requests ran; not ready after {seconds:.0f} s", **figures)


def limit(box: Box) -> float:
    """Return the seconds within which the plan promises to notice."""
    supervise = served_plan.supervision(box.plan).supervise
    return supervise.ready_grace + 2 * supervise.poll + SLACK


def engine_of(processes: Sequence[psutil.Process]) -> psutil.Process | None:
    """Return the process to stop: the last worker, or the engine where it has none."""
    titled = []
    for process in processes:
        try:
            titled.append((" ".join([process.name(), *process.cmdline()[:1]]), process))
        except psutil.Error:
            continue
    for title in _ENGINES:
        if found := [process for name, process in titled if title in name]:
            return found[-1]
    return None


def _until_busy(replica: SmallReplica, generated: int) -> None:
    until = time.monotonic() + BEGIN
    while time.monotonic() < until and replica.asker.now(BEGIN).generated <= generated:
        time.sleep(STEP)


def _until_not_ready(health: str, seconds: float) -> float | None:
    began = time.monotonic()
    while (spent := time.monotonic() - began) < seconds:
        try:
            if not http.get(f"{health}/readyz", None).is_success:
                return spent
        except RequestFailed:
            return spent
        time.sleep(STEP)
    return None
