"""
Fetch the weights of a plan before vLLM starts, in a process of its own that a stop ends at once.

vLLM downloads too, but a dead download and a long one look alike there, and it starts a file over after a restart.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import plain_file, procfs, supervision_settings
from ..plan import Plan
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import ExitReason
from ..vllm_log.startup_phase import LoadRate
from ..weights import hub_files
from . import cache_growth
from .lifecycle import STOPPED_EARLY, Lifecycle, StartEnded
from .stop_signals import first_of

PHASE = "fetching weights"
PROGRAM = f"{__name__.rsplit('.', 2)[0]}.weights.fetch_program"
"""Not imported here: the Hub's modules would stay in memory for as long as vLLM runs."""
LOG_EVERY = 15.0  # seconds
_WINDOW = 30.0  # seconds over which the rate is measured
_LAST = 3.0  # seconds for a process to end that was killed
_READ = 30.0  # seconds to read what a process reported that has ended
_FORMATS = frozenset({"auto", "hf", "safetensors", "fastsafetensors", "instanttensor"})
"""Values of vLLM's `load-format` that read files of the Hub's cache; the others have ways of their own."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub; empty texts stand for the main branch, and for the Hub's own cache."""

    name: str
    revision: str = ""
    cache: str = ""


def repositories(plan: Plan, environ: Mapping[str, str]) -> list[Repository]:
    """Return what to fetch for a plan: the model, and a drafter of its own; nothing where it is switched off."""
    fetches = supervision_settings.read(plan.supervision).supervise.fetch
    modelscope = {**environ, **plan.environment()}.get("VLLM_USE_MODELSCOPE", "").lower() in ("1", "true")
    if not fetches or modelscope or str(plan.value("load-format", "auto")).lower() not in _FORMATS:
        return []
    cache = str(plan.value("download-dir") or "")
    named = {
        (str(plan.value(f"{group}model") or ""), str(plan.value(f"{group}revision") or ""))
        for group in ("", "speculative-config." if plan.draft_tokens else "")
    }
    return [
        Repository(name, revision, cache)
        for name, revision in sorted(named)
        if hub_files.is_repository(name) and not Path(name).exists()
    ]


async def fetch(plan: Plan, life: Lifecycle) -> bool:
    """
    Fetch what the cache lacks, and return whether anything had to be.

    Raise StartEnded for a stop, for a failure, and when nothing moves for `supervise.stall.fetching-weights`.
    """
    fetched = False
    environ = {**life.context.environ, **plan.environment(secrets=True)}
    limit = supervision_settings.read(plan.supervision).supervise.stall[PHASE.replace(" ", "-")]
    for repository in repositories(plan, environ):
        life.health.enter(PHASE)
        fetched |= await _Fetch(repository, cache_growth.folder(plan, environ), life, limit).run(environ)
    return fetched


class _Fetch:
    """One repository on its way."""

    def __init__(self, repository: Repository, cache: Path, life: Lifecycle, limit: float) -> None:
        self.repository, self.cache, self.life, self.limit = repository, cache, life, limit
        self.rate, self.moved, self.logged = LoadRate(_WINDOW), time.monotonic(), -LOG_EVERY
        self.fetched, self.waits = False, False
        self.held = 0
        """Bytes on disk while another process fetches."""
        self.failure: ExitReason | None = None

    async def run(self, environ: Mapping[str, str]) -> bool:
        """Return whether anything was missing; raise StartEnded."""
        stop = self.life.signals.stop
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", PROGRAM),
            *(self.repository.name, self.repository.revision, self.repository.cache),
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=procfs.end_with_parent,
        )
        assert process.stdout is not None
        reading, ended = asyncio.create_task(self._read(process.stdout)), asyncio.create_task(process.wait())
        try:
            while not (ended.done() or stop.is_set() or self._stalled()):
                await first_of(ended, stop.wait(), asyncio.sleep(1.0))
                if self.waits:
                    self._look(await asyncio.to_thread(cache_growth.held, [self.cache]), time.monotonic())
        finally:
            limit = _READ if ended.done() else _LAST  # a disk that hangs holds a process beyond SIGKILL
            if not ended.done():
                process.kill()
            await asyncio.wait({reading, ended}, timeout=limit)
            reading.cancel()
            ended.cancel()
        if stop.is_set():
            raise StartEnded(STOPPED_EARLY)
        if self._stalled() or self.failure or process.returncode:
            raise StartEnded(self._reason(process.returncode or 0))
        return self.fetched

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                if not (line := await stream.readline()):
                    return
                report = plain_file.parse_json(line)
            except ValueError:  # a library printed something, perhaps without end
                continue
            if isinstance(report, dict):
                self.take(report, time.monotonic())

    def _look(self, held: int, now: float) -> None:
        """Take the size of the cache, which another process fills."""
        if held > self.held:
            self.held, self.moved = held, now

    def take(self, report: Mapping[str, Any], now: float) -> None:
        """Take one report of the process."""
        health = self.life.health
        if "failed" in report:
            self.failure = ExitReason(exit_cause.by_status(report["status"]), report["failed"])
        elif "note" in report:
            log.info(report["note"])
            if report.get("offline"):
                context = self.life.context
                environ = {**context.environ, "HF_HUB_OFFLINE": "1"}  # else vLLM 0.32.0 ends with a ConnectError
                self.life.context = dataclasses.replace(context, environ=environ)
        elif "waits" in report:
            self.fetched = self.waits = True
            health.detail = "another process fetches them"
            self._log(f"waiting: {report['waits'].partition(';')[0]}", now)
        elif "here" in report:
            self.fetched, self.waits = True, False
            self._progress(report["here"], report["size"], report["read"], now)

    def _progress(self, here: int, size: int, read: int, now: float) -> None:
        health, before = self.life.health, self.rate.loaded
        self.rate.add(now, here + read)
        if self.rate.loaded > before:
            self.moved = now
        rate = self.rate.per_second
        health.percent, health.rate = 100.0 * here / max(size, 1), rate
        left = f", {_duration((size - here) / rate)} left" if rate and size > here else ""
        health.detail = f"{here / 1e9:.1f} of {size / 1e9:.1f} GB{left}"
        speed = f" at {rate / 1e6:.0f} MB/s" if rate else ""
        self._log(f"fetching {self.repository.name}: {health.percent:.0f} %{speed}, {health.detail}", now)

    def _log(self, sentence: str, now: float) -> None:
        if now - self.logged >= LOG_EVERY:
            self.logged = now
            log.info(sentence)

    def _stalled(self) -> bool:
        return time.monotonic() - self.moved > self.limit

    def _reason(self, status: int) -> ExitReason:
        if self.failure:
            return self.failure
        name = self.repository.name
        if status and not self._stalled():
            sentence = f"the fetch of {name} ended with status {status}; start again to resume"
            return ExitReason(exit_cause.HOST, sentence)
        sentence = f"{PHASE}: nothing of {name} came for {self.limit:.0f} s (supervise.stall.fetching-weights)"
        return ExitReason(exit_cause.STALLED, f"{sentence}; start again to resume")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
