"""
Own one vLLM from its start to its end: hold back, resolve, start, prove, watch, drain, and say how it ended.

No token passes through here: vLLM listens itself. Everything runs in one event loop, beside the health server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...healthcheck.app import health_app
from ...healthcheck.server import PortTaken, serving
from ...healthcheck.state import PHASES, Health
from .. import procfs, served_plan, supervision_settings
from ..client.errors import Refused, Unreachable
from ..client.vllm import VllmClient
from ..doctor.report import DoctorReport
from ..errors import ConfigError, UserError
from ..plan import MASK, Plan
from ..supervision_settings import Supervision
from ..vllm_log import exit_cause, startup_phase
from ..vllm_log.exit_cause import Ending
from . import crash_loop, jit_prebuild, stack_dump
from .context import Replica
from .daemon_thread import in_background
from .kernel_cache import Cache
from .monitor import watch
from .readiness_gate import prove
from .startup import boot
from .vllm_process import Engine

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
STARTING = PHASES[PHASES.index("starting") : PHASES.index("proving")]
GOING = 15.0  # seconds for an engine that failed a test request to end by itself, with its own words
TERM = 5.0  # seconds that an engine gets to release its GPUs before SIGKILL


@dataclass(frozen=True)
class Surroundings:
    """Where one supervisor runs: how it is asked, where it keeps its record, and how it speaks."""

    environ: Mapping[str, str]
    health_host: str
    health_port: int
    run_folder: Path
    termination_log: Path
    prepare: Callable[[], Plan]
    """Resolve the plan; UserError when that is impossible."""
    check: Callable[[Plan], DoctorReport]
    """Look at host and checkpoint before the start; every problem, and whether it is fatal."""
    describe: Callable[[Plan], Mapping[str, object]]
    """What `/plan` answers."""
    show: Callable[[Plan], None]
    say: Callable[[str], None]
    cache: Callable[[Plan], Cache]
    """Look for the kernels of an earlier start of the plan."""
    interactive: bool = False
    """Someone is watching: the same mistake twice is answered at once."""


def run(around: Surroundings) -> int:
    """Serve until the end and return the exit status."""
    return asyncio.run(_Supervisor(around).run())


class _Supervisor:
    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.health = Health()
        self.record = crash_loop.Record()
        self.stop, self.hurry = asyncio.Event(), asyncio.Event()
        self.patient = True

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in STOPS:
            loop.add_signal_handler(number, self._asked_to_stop, number)
        procfs.adopt_orphans()
        around = self.around
        try:
            with crash_loop.owned(around.run_folder):
                async with serving(health_app(self.health), around.health_host, around.health_port) as port:
                    around.say(f"health on port {port}: /startupz /livez /readyz")
                    ending = await self._life()
                    self.health.enter("ended")
                    return self._finish(ending)
        except PortTaken as error:
            raise ConfigError(str(error)) from None
        finally:  # a signal that comes now changes nothing any more
            for number in STOPS:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    def _asked_to_stop(self, number: int) -> None:
        """The first signal drains, the second hurries. Ctrl-C means a person, and nobody's balancer has to look."""
        if self.stop.is_set():
            self.hurry.set()
        self.patient = self.patient and number != signal.SIGINT
        self.stop.set()

    async def _life(self) -> Ending:
        around = self.around
        self.record = crash_loop.load(around.run_folder)
        try:
            plan = await asyncio.to_thread(around.prepare)
        except UserError as error:
            return await self._refused(error)
        around.show(plan)
        care = supervision_settings.read(plan.supervision)
        self.health.ready_grace, self.health.live_grace = care.supervise.ready_grace, care.supervise.live_grace
        self._describe(plan)
        self._begin(crash_loop.fingerprint(plan.argv(), plan.environment()))
        wait = crash_loop.hold(self.record.failures, care.supervise.backoff_first, care.supervise.backoff_most)
        await self._hold_back(wait)
        if self.stop.is_set():
            return Ending(exit_cause.DRAINED, "asked to stop before the engine was started")
        try:
            if refused := await self._checked(plan):
                return refused
            ending = await self._serve(plan, care)
            if ending.cause is exit_cause.GATE_REFUSED and care.gate.below_floor == "degrade":
                around.say(f"WARNING: {ending.sentence} Starting once more, without its draft head.")
                self.health.degraded = True
                plan = served_plan.without_draft(plan, f"degraded: {ending.sentence}")
                self._describe(plan)
                ending = await self._serve(plan, care)
        except UserError as error:  # the host or the checkpoint cannot be looked at, or vLLM cannot be started
            return Ending(exit_cause.by_status(error.exit_status), str(error))
        return ending

    async def _checked(self, plan: Plan) -> Ending | None:
        """Look before the start and say every problem; return how it ends when one is fatal. A stop ends it at once."""
        self.health.enter("checking")
        looking = in_background(self.around.check, plan)
        await _either(looking, self.stop.wait())
        if self.stop.is_set():
            procfs.end_all(os.getpid())  # the ranks of an all-reduce
            return Ending(exit_cause.DRAINED, "asked to stop before the engine was started")
        report = await looking
        procfs.trim()
        for one in report.diagnoses:
            if not one.problem.fatal:
                self.around.say(f"note: {one.sentence()}")
        if not report.fatal:
            return None
        said = "\n".join(f"  {one.sentence()} (--skip {one.name} overrides)" for one in report.fatal)
        return Ending(exit_cause.by_status(report.exit_status), f"seen before the start:\n{said}")

    async def _refused(self, error: UserError) -> Ending:
        """Say at once what is wrong; where the same is wrong again and again, come back later each time."""
        self.around.say(str(error))
        self._begin(crash_loop.fingerprint("refused", str(error)))
        if not self.around.interactive:
            defaults = Supervision().supervise
            await self._hold_back(crash_loop.hold(self.record.failures, defaults.backoff_first, defaults.backoff_most))
        return Ending(exit_cause.by_status(error.exit_status), str(error), said=True)

    def _begin(self, plan: str) -> None:
        self.record = self.record.begin(plan)
        self.health.starts = self.record.starts
        crash_loop.save(self.around.run_folder, self.record)

    def _describe(self, plan: Plan) -> None:
        self.health.plan = self.around.describe(plan)
        self.health.key = served_plan.key(plan)
        crash_loop.write(self.around.run_folder / "plan.json", json.dumps(self.health.plan, indent=2))

    async def _hold_back(self, seconds: float) -> None:
        if not seconds:
            return
        self.health.enter("held back")
        self.health.held_until = time.monotonic() + seconds
        self.around.say(
            f"crash-loop breaker: {self.record.failures} starts in a row have failed (the last: {self.record.cause});"
            f" going on in {seconds:.0f} s. A changed setting starts at once."
        )
        await _either(self.stop.wait(), asyncio.sleep(seconds))
        self.health.held_until = None

    async def _serve(self, plan: Plan, care: Supervision) -> Ending:
        """Start the engine once and return how it ended; nothing of it is left then."""
        health, around = self.health, self.around
        health.enter("starting")
        health.generated_after = None
        began, cache = time.monotonic(), around.cache(plan)
        around.say(cache.sentence())
        log = startup_phase.Watch(began)
        memory = exit_cause.Memory()

        def on_line(line: str) -> None:
            memory.feed(line)
            if health.phase in STARTING:
                log.feed(line, time.monotonic())
                _show_phase(health, log)

        argv = [*plan.argv(secrets=True)]
        argv[0] = around.environ["DSV4_VLLM"]
        environ = {**around.environ, **plan.environment(secrets=True)}
        engine = await Engine.start(argv, environ, on_line)
        health.engine = engine.pid
        client = VllmClient(served_plan.url(plan), served_plan.key(plan), verify=False)
        replica = Replica(plan, care, health, client, around.say)
        work = asyncio.create_task(self._work(replica, engine, log, lambda: self._ready(began, cache)))
        modules = [] if cache.filled else care.supervise.compile_ahead
        beside = asyncio.create_task(jit_prebuild.compile_all(modules, environ, around.say))
        gone, stop = asyncio.create_task(engine.wait()), asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({work, gone, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                work.cancel()
                return await self._drain(replica, engine, gone)
            if not gone.done() and (ending := work.result()) is not None:
                return await self._explained(memory.explain(ending), engine)
            status = await gone  # the work ends without a word when the engine is going
            await engine.last_words()
            return memory.classify(status, phase=health.phase, was_ready=health.ready_after is not None)
        finally:
            for task in (work, gone, stop, beside):
                task.cancel()
            await asyncio.gather(work, gone, stop, beside, return_exceptions=True)
            await client.close()
            if left := await engine.end(0.0 if self.hurry.is_set() else TERM):
                around.say(
                    f"processes {left} do not end after SIGKILL: they wait in a driver, and may hold GPU memory."
                )
            health.engine, health.busy = None, False

    async def _work(
        self, replica: Replica, engine: Engine, log: startup_phase.Watch, ready: Callable[[], None]
    ) -> Ending | None:
        """Bring the engine to ready and watch it; return why it has to end, None when it is ending by itself."""
        health, supervise = replica.health, replica.care.supervise
        try:
            if ending := await boot(replica, engine, log):
                return ending
            health.enter("proving")
            async with asyncio.timeout(supervise.stall["proving"]):
                if ending := await prove(replica):
                    return ending
            engine.note_shared_memory()
            ready()
            lasting = asyncio.get_running_loop().call_later(supervise.healthy_after, self._healthy)
            try:
                return await watch(replica)
            finally:
                lasting.cancel()
        except TimeoutError:
            limit = supervise.stall["proving"]
            return Ending(exit_cause.STALLED, f"proving: no answer within {limit:.0f} s (supervise.stall.proving)")
        except (Unreachable, Refused) as error:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(engine.wait(), GOING)
                return None
            return Ending(
                exit_cause.START_FAILED, f"{health.phase}: a test request failed ({error}); vLLM's log says why"
            )

    def _ready(self, began: float, cache: Cache) -> None:
        """Open the replica, and keep or compare what its start took; `began` is when this engine was started."""
        health, now = self.health, time.monotonic()
        health.enter("ready")
        health.ready_after = now - health.started
        cache.keep(now - began, health.phase_seconds)
        health.cache_hit, health.cache_saved = bool(cache.filled), cache.saved(now - began)
        seconds = health.cache_saved or 0.0
        saved = f"; {seconds:.0f} s saved by the kernel cache" if seconds >= 1 else ""
        found = "" if health.caches == "unknown" else f"; caches {health.caches}"
        self.around.say(f"ready {health.ready_after:.0f} s after start{found}{saved}")

    def _healthy(self) -> None:
        """Close the record of failures."""
        self.record = self.record.healthy()
        crash_loop.save(self.around.run_folder, self.record)

    async def _explained(self, ending: Ending, engine: Engine) -> Ending:
        """Keep the stacks of an engine that stands still, before it is ended."""
        if ending.cause not in (exit_cause.HUNG, exit_cause.STALLED):
            return ending
        self.health.ended = ending.sentence
        text = await stack_dump.dump(engine.family())
        text = text.replace(self.health.key, MASK) if self.health.key else text  # argv may hold it
        file = self.around.run_folder / "stacks.txt"
        kept = f"Stacks are in {file}." if crash_loop.write(file, text) else ""
        self.around.say(f"stacks of the engine:\n{text}")
        return replace(ending, sentence=f"{ending.sentence} {kept}".strip())

    async def _drain(self, replica: Replica, engine: Engine, gone: asyncio.Task[int]) -> Ending:
        """Let the balancer see it, let vLLM finish what runs, and say whether anything was cut."""
        health, supervise = replica.health, replica.care.supervise
        was_ready = health.ready_after is not None
        health.draining = True
        health.enter("draining")
        if not was_ready:  # nothing to finish, and vLLM may miss the signal while it loads
            return Ending(exit_cause.DRAINED, "asked to stop during the start")
        if self.patient:
            await _either(self.hurry.wait(), gone, asyncio.sleep(supervise.drain_wait))
        engine.signal(signal.SIGTERM)
        allowed = float(replica.plan.value("shutdown-timeout", 0))
        until = time.monotonic() + allowed + supervise.stop_grace
        running, drained_by = 0, time.monotonic() + allowed
        while not gone.done() and not self.hurry.is_set() and time.monotonic() < until:
            with contextlib.suppress(Unreachable, Refused):
                running = (await replica.client.counters()).running
                health.detail = f"{running} requests running"
            await _either(gone, self.hurry.wait(), asyncio.sleep(0.5))
        if running and (not gone.done() or time.monotonic() > drained_by):
            why = "a second signal hurried" if self.hurry.is_set() else f"shutdown-timeout of {allowed:.0f} s was over"
            return Ending(exit_cause.CUT, f"{running} requests were still running when {why}")
        return Ending(exit_cause.DRAINED, "asked to stop; every running request was finished")

    def _finish(self, ending: Ending) -> int:
        """Say how it ended, where users and Kubernetes look, and remember it for the next start."""
        around, status = self.around, ending.cause.exit_status
        failed = ending.cause not in (exit_cause.DRAINED, exit_cause.CUT)
        self.health.ended = ending.sentence
        self.record = self.record.end(ending.cause.name, time.time(), failed=failed)
        crash_loop.save(around.run_folder, self.record)
        text = f"{ending.cause.name} (exit status {status}): {ending.sentence}"
        if ending.root:
            text += f"\nroot cause: {ending.root}"
        if not ending.said:
            around.say(text)
        if failed and around.termination_log.exists():  # Kubernetes makes the file, and reads 4096 bytes of it
            with contextlib.suppress(OSError):
                around.termination_log.write_text(text[:4096], encoding="utf-8")
        summary = {"cause": ending.cause.name, "status": status, "sentence": ending.sentence, "root": ending.root}
        crash_loop.write(around.run_folder / "last-exit.json", json.dumps(summary, indent=2))
        return status


async def _either(*things: Awaitable[object]) -> None:
    """Wait for the first of several; tasks that were given stay, what was started here is cancelled."""
    tasks = [asyncio.ensure_future(thing) for thing in things]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for thing, task in zip(things, tasks, strict=True):
            if thing is not task:
                task.cancel()


def _show_phase(health: Health, log: startup_phase.Watch) -> None:
    """Copy what the log says into the state; percent and rate of the weights may be known from elsewhere."""
    health.enter(log.phase)
    health.detail, health.caches = log.detail, log.caches
    health.percent = health.percent if log.percent is None else log.percent
