"""
Run one vLLM from its start to its end: prove it before it receives traffic, watch it, drain it, report why it ended.

No token passes through here: vLLM listens itself. Everything runs in one event loop, together with the health server.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ...healthcheck.state import PHASES, Health
from .. import served_plan
from ..client.errors import Refused, Unreachable
from ..client.vllm import VllmClient
from ..parallel import parallel_of
from ..plan import Plan
from ..secret import hidden
from ..supervision_settings import Supervision
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import ExitReason
from ..vllm_log.parser import LogLine
from ..vllm_log.root_cause import LogNotes
from ..vllm_log.startup_phase import StartupProgress
from . import (
    advice,
    atomic_file,
    cache_growth,
    compile_threads,
    compiled,
    gpu_faults,
    guard_path,
    jit_prebuild,
    kernel_cache,
    leftovers,
    run_folder,
    spare_processes,
    stack_dump,
    weights_prefetch,
)
from .context import VllmSession
from .drain import drain
from .follower import Follower
from .kernel_cache import KernelCache
from .lifecycle import Lifecycle
from .monitor import watch
from .peers import Peers
from .readiness_gate import prove
from .request_count import ShutdownLog
from .startup import until_up
from .stop_signals import first_of
from .vllm_process import Passing, VllmProcess
from .xid_watch import XidWatch

STARTING = PHASES[PHASES.index("starting") : PHASES.index("proving")]
DYING = 15.0  # seconds for an engine that failed a test request to end by itself, with the cause in its log
TERM = 5.0  # seconds that vLLM gets to release its GPUs before SIGKILL
log = logging.getLogger(__name__)


async def supervise(plan: Plan, life: Lifecycle) -> ExitReason:
    """Run vLLM until it ends; if the gate refuses it and the plan allows it, run it again without its draft head."""
    settings, shape = served_plan.supervision(plan), parallel_of(plan.flags)
    life.health.headless = shape.headless
    life.health.gpu_faults_matter = settings.supervise.gpu_faults == "not-ready"
    reason = gpu_faults.with_faults(await _run(plan, settings, life), life.health)
    may_degrade = settings.gate.below_floor == "degrade" and shape.nodes == 1  # other nodes keep their draft head
    if reason.cause is not exit_cause.GATE_REFUSED or not may_degrade:
        return reason
    log.warning(f"{reason.sentence} Starting again without the draft head.")
    life.health.degraded = True
    plan = served_plan.without_draft(plan, f"degraded: {reason.sentence.removesuffix('.')}")
    life.describe(plan)
    return gpu_faults.with_faults(await _run(plan, settings, life), life.health)


async def _run(plan: Plan, settings: Supervision, life: Lifecycle) -> ExitReason:
    """Start vLLM and return why it ended, when all its processes are gone."""
    health, signals = life.health, life.signals
    health.enter("starting")
    started = time.monotonic()
    cache = await asyncio.to_thread(_cache, plan, life)
    health.generated_after, health.last_start = None, cache.last_start
    log.info(cache.sentence())
    progress, notes, shutdown = StartupProgress(started), LogNotes(), ShutdownLog()

    def on_line(line: LogLine) -> None:
        notes.feed(line)
        shutdown.feed(line)
        if health.phase in STARTING:
            progress.feed(line, time.monotonic())
            _show_progress(health, progress)

    environ = _environ(plan, life, first=not cache.filled)
    spares = await asyncio.to_thread(_spares, plan, settings)
    process = await _start_vllm(plan, life, spares | environ, on_line)
    health.engine = process.pid
    client = VllmClient(served_plan.url(plan), served_plan.key(plan), verify=False)
    every = math.inf if life.context.write else VllmSession.report_every
    session = VllmSession(plan, settings, health, client, cache, started, every)
    peers = Peers(plan)
    follower = Follower(session, process, progress, peers)
    serving = asyncio.create_task(
        follower.follow(cache_growth.folder(plan, life.context.environ), life.forget_failures)
        if health.headless
        else _serve(session, process, progress, life)
    )
    lost = asyncio.create_task(
        peers.lost(
            process.family,
            ready=lambda: health.ready_after is not None,
            waits=lambda: progress.moved(time.monotonic()),
        )
    )
    background = _background(plan, settings, environ, first=not cache.filled)
    recording = asyncio.create_task(
        leftovers.record(life.context.run_folder, process.folder, process.shared_memory, process.nap)
    )
    exited, stop = asyncio.create_task(process.wait()), asyncio.create_task(signals.stop.wait())
    xids = XidWatch.of(life.machine, environ, gpu_faults.noting(health, life.context.environ))
    xids.start()
    try:
        await asyncio.wait({serving, exited, stop, lost}, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            serving.cancel()
            if health.headless:
                return await follower.leave(signals, exited, lost)
            return await _with_stacks(await drain(session, process, signals, exited, shutdown), process, life)
        if lost.done() and not exited.done():
            return lost.result()
        if not exited.done() and (reason := serving.result()) is not None:
            situation = advice.situation(plan, life.machine, life.context, xids.found, life.process_limits)
            return await _with_stacks(exit_cause.explain(reason, notes, situation), process, life)
        await exited  # `serving` has no reason when the process is ending by itself
        await process.finish_log()
        if peers.blamed(notes.roots()):
            return peers.reason(ready=health.ready_after is not None)
        await first_of(signals.hurry.wait(), xids.settled())
        return _ended_by_itself(notes, exited.result(), plan, life, xids)
    finally:
        xids.stop()
        tasks: tuple[asyncio.Task[Any], ...] = (serving, exited, stop, lost, recording, *background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
        await _end(process, life)


def _background(
    plan: Plan, settings: Supervision, environ: Mapping[str, str], *, first: bool
) -> tuple[asyncio.Task[None], ...]:
    """Begin what makes a start shorter and may fail: kernels before vLLM needs them, weights into the page cache."""
    modules = settings.supervise.prebuild if first else []
    shards = weights_prefetch.folder(plan, environ) if settings.supervise.prefetch else None
    return (
        asyncio.create_task(jit_prebuild.compile_all(modules, environ)),
        asyncio.create_task(weights_prefetch.read(shards)),
    )


async def _start_vllm(
    plan: Plan, life: Lifecycle, environ: Mapping[str, str], on_line: Callable[[LogLine], None]
) -> VllmProcess:
    """Start vLLM; flags that hold a secret reach it in a file."""
    (_, *arguments), secret_flags = plan.split_argv()
    command = [life.context.vllm, *arguments]
    passing = Passing(life.secrets, life.context.write)
    return await VllmProcess.start(command, environ, on_line, secret_flags=secret_flags, passing=passing)


def _cache(plan: Plan, life: Lifecycle) -> KernelCache:
    """Return the cache of a plan, with what it holds before the start."""
    cache = kernel_cache.find(plan, kernel_cache.installed_folder(plan, life.context.environ))
    return dataclasses.replace(cache, before=compiled.count(cache.folder))


async def _end(process: VllmProcess, life: Lifecycle) -> None:
    """End all of vLLM's processes."""
    if remaining := await process.end(TERM, life.signals.hurry):
        log.error(f"processes {remaining} survived SIGKILL: they wait in a driver call, and may still hold GPU memory.")
    else:
        leftovers.forget(life.context.run_folder)
    life.health.engine, life.health.busy = None, False


def _environ(plan: Plan, life: Lifecycle, *, first: bool) -> dict[str, str]:
    """Return the variables that vLLM starts with; a `first` start compiles in more threads."""
    environ = {**life.context.environ, **plan.environment(secrets=True)}
    if first and life.machine:
        environ |= compile_threads.variables(environ, life.machine.cores, parallel_of(plan.flags).node_gpus)
    return environ | guard_path.variables(life.context.vllm, environ, life.context.run_folder)


def _spares(plan: Plan, settings: Supervision) -> dict[str, str]:
    asked = settings.supervise.spare_processes and spare_processes.read_by_vllm()
    return spare_processes.variables(plan) if asked else {}


def _ended_by_itself(notes: LogNotes, status: int, plan: Plan, life: Lifecycle, xids: XidWatch) -> ExitReason:
    return exit_cause.classify(
        notes,
        status,
        phase=life.health.phase,
        was_ready=life.health.ready_after is not None,
        situation=advice.situation(plan, life.machine, life.context, xids.found, life.process_limits),
    )


async def _serve(
    session: VllmSession, process: VllmProcess, progress: StartupProgress, life: Lifecycle
) -> ExitReason | None:
    """Bring vLLM to ready and watch it; return why it has to end, None when it is ending by itself."""
    health, supervise = session.health, session.settings.supervise
    try:
        cache = cache_growth.folder(session.plan, life.context.environ)
        if reason := await until_up(session, process, progress, cache):
            return reason
        health.enter("proving")
        async with asyncio.timeout(supervise.stall["proving"]):
            if reason := await prove(session):
                return reason
        process.note_shared_memory()
        _become_ready(session)
        log.info(compiled.sentence(session.cache.before, await asyncio.to_thread(compiled.count, session.cache.folder)))
        healthy = asyncio.get_running_loop().call_later(supervise.healthy_after, life.forget_failures)
        try:
            return await watch(session)
        finally:
            healthy.cancel()
    except TimeoutError:
        limit = supervise.stall["proving"]
        return ExitReason(exit_cause.STALLED, f"proving: no answer within {limit:.0f} s (supervise.stall.proving)")
    except (Unreachable, Refused) as error:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DYING):
                await process.wait()
            return None
        sentence = f"{health.phase}: a test request failed ({error}); see vLLM's log"
        return ExitReason(exit_cause.START_FAILED, sentence)


def _become_ready(session: VllmSession) -> None:
    """Mark the replica ready, and record how long its start took, or compare that with the first one."""
    health, cache, now = session.health, session.cache, time.monotonic()
    health.enter("ready")
    health.ready_after = now - health.started
    cache.keep(now - session.started, health.phase_seconds)
    health.cache_hit, health.cache_saved = bool(cache.filled), cache.saved(now - session.started)
    seconds = health.cache_saved or 0.0
    saved = f"; the kernel cache saved {seconds:.0f} s" if seconds >= 1 else ""
    caches = "" if health.caches == "unknown" else f"; caches {health.caches}"
    log.info(f"ready {health.ready_after:.0f} s after start{caches}{saved}")


async def _with_stacks(reason: ExitReason, process: VllmProcess, life: Lifecycle) -> ExitReason:
    """Save the stacks of a hung vLLM before it is ended."""
    if reason.cause not in (exit_cause.HUNG, exit_cause.STALLED):
        return reason
    health = life.health
    health.ended = reason.sentence
    dump = asyncio.create_task(stack_dump.dump(process.family()))
    await first_of(dump, life.signals.hurry.wait())
    dump.cancel()
    text = dump.result() if dump.done() else "a second signal came before the stacks were read"
    text = hidden(text, life.secrets)
    file = life.context.run_folder / run_folder.STACKS
    kept = f"Stacks are in {file}." if atomic_file.write(file, text) else ""
    log.info(f"stacks of vLLM's processes:\n{text}")
    return reason.then(kept)


def _show_progress(health: Health, progress: StartupProgress) -> None:
    """Copy the progress that the log shows; the percentage of the weights may have another source."""
    if progress.phase != health.phase:
        health.enter(progress.phase)
        now = time.monotonic()
        left = health.seconds_left(now)
        known = "" if left is None else f", about {left:.0f} s left"
        log.info(f"start: {health.phase}, {now - health.started:.0f} s since start{known}")
    health.detail, health.caches = progress.detail, progress.caches
    health.percent = health.percent if progress.percent is None else progress.percent
