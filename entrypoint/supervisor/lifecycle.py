"""
The frame of every start: signals, the run directory, the health server, the record of failures, the exit report.

Health probes are answered from before the first step until after the last one, even while a plan is resolved or the
crash-loop breaker makes a refused plan wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ...healthcheck.app import health_app
from ...healthcheck.server import serving
from ...healthcheck.state import Health, LastExit
from .. import api_key, process_limits, procfs, served_plan
from ..errors import UserError, of_file
from ..fingerprint import fingerprint
from ..plan import KEY_FILE, Plan
from ..secret import hidden
from ..supervision_settings import Supervise
from ..vllm_log import exit_cause
from ..vllm_log.exit_cause import ExitReason
from . import atomic_file, crash_loop, exit_report, provenance, run_folder, stop_signals
from .context import ServeContext
from .daemon_thread import in_background
from .stop_signals import StopSignals, first_of

if TYPE_CHECKING:
    from ..doctor.report import DoctorReport
    from ..machine.machine import Machine

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)
STOPPED_EARLY = ExitReason(exit_cause.DRAINED, "stopped before vLLM was started")


def _logged_by_vllm(_: str) -> None:
    """Drop a message of a key file: the middleware in vLLM's process reads the same file, and logs it."""


class StartEnded(Exception):
    """A step before vLLM ended the start, for this reason."""

    def __init__(self, reason: ExitReason) -> None:
        super().__init__(reason.sentence)
        self.reason = reason


class Lifecycle:
    """One start from the first second to the exit status: its state, and the steps before vLLM."""

    def __init__(self, context: ServeContext, signals: StopSignals) -> None:
        self.context, self.signals, self.health = context, signals, Health()
        self.record = crash_loop.load(context.run_folder)
        self.health.last_exit = exit_report.last(context.run_folder, self.record)
        self.machine: Machine | None = None
        self.process_limits = process_limits.read()
        self.secrets: set[str] = set()
        """Those of the plan, which no file and no message may hold."""
        self.exit_reason: ExitReason | None = None
        self.exit_status = 0
        self._erred = False

    async def admit(self, plan: Plan, machine: Machine) -> bool:
        """
        Record the start of a plan, and wait if its last starts failed.

        Return whether it waited, since the machine may have changed meanwhile; raise StartEnded for a stop.
        """
        supervise = served_plan.supervision(plan).supervise
        self.health.ready_grace, self.health.live_grace = supervise.ready_grace, supervise.live_grace
        self.machine = machine
        self.describe(plan)
        self._begin(fingerprint(plan.argv(), plan.environment()))
        waited = await self._back_off(supervise)
        if self.signals.stop.is_set():
            raise StartEnded(STOPPED_EARLY)
        return waited

    async def unless_stopped(self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """
        Run one step in a thread and return its result.

        A signal to stop ends it at once, with every process that it started, and raises StartEnded.
        """
        if self.signals.stop.is_set():
            raise StartEnded(STOPPED_EARLY)
        step = in_background(function, *arguments, **keywords)
        await first_of(step, self.signals.stop.wait())
        if self.signals.stop.is_set():
            procfs.end_all(os.getpid())  # such as the ranks of an all-reduce
            raise StartEnded(STOPPED_EARLY)
        result = await step
        procfs.trim()
        return result

    async def check(self, checks: Callable[[], DoctorReport]) -> None:
        """Run the checks before a start; raise StartEnded when one finds a fatal problem."""
        self.health.enter("checking")
        self.require(await self.unless_stopped(checks))

    def require(self, report: DoctorReport) -> None:
        """Log what was not checked and every problem; raise StartEnded when one of them is fatal."""
        for reason in report.not_checked:
            log.info(f"note: not checked: {reason}")
        for diagnosis in report.diagnoses:
            if not diagnosis.problem.fatal:
                log.info(f"note: {diagnosis.sentence()}")
        if report.fatal:
            problems = "\n".join(
                f"  {diagnosis.sentence()} (--skip {diagnosis.name} overrides)." for diagnosis in report.fatal
            )
            cause = exit_cause.by_status(report.exit_status)
            raise StartEnded(ExitReason(cause, f"the checks before the start failed:\n{problems}"))

    def describe(self, plan: Plan) -> None:
        """Publish a plan: at `/plan`, and in the run directory; raise ConfigError if its key file has broken since."""
        assert self.machine is not None
        self.health.plan = provenance.replica(plan, self.machine)
        self.health.key, self.secrets = served_plan.key(plan), plan.secrets()
        if (path := self.context.environ.get(KEY_FILE)) and self.health.key:
            file = self.health.key_file or api_key.followed(path, f"environment {KEY_FILE} = {path}", _logged_by_vllm)
            self.health.key_file = file
        atomic_file.write(self.context.run_folder / run_folder.PLAN, json.dumps(self.health.plan, indent=2))

    def forget_failures(self) -> None:
        """Clear the failures: this start has been healthy for a long time."""
        self.record = self.record.healthy()
        crash_loop.save(self.context.run_folder, self.record)

    async def refuse(self, error: UserError) -> ExitReason:
        """Log an error at once; if the same error repeats, wait longer each time."""
        log.error(str(error))
        self._begin(fingerprint("refused", str(error)))
        reason = ExitReason(exit_cause.by_status(error.exit_status), str(error), logged=True)
        self.health.last_exit = LastExit(reason.cause.name, reason.cause.exit_status, reason.sentence, at=time.time())
        if not self.context.interactive:
            await self._back_off(Supervise())
        return reason

    def finish(self, reason: ExitReason) -> None:
        """Report why it ended, and record that for the next start."""
        self.health.enter("ended")
        self.health.ended = reason.sentence
        good = reason.cause is exit_cause.DRAINED and self.health.ready_after is not None
        failed = None if not (reason.failed or good) else reason.failed  # a stop during the start proves nothing
        self.record = self.record.end(reason.cause.name, time.time(), failed=failed)
        crash_loop.save(self.context.run_folder, self.record)
        exit_report.publish(reason, self.context)
        self.exit_status = reason.cause.exit_status

    def internal_error(self, error: BaseException) -> ExitReason:
        """Return the reason for an error that is not the user's; its traceback goes to the run directory."""
        file = self.context.run_folder / run_folder.INTERNAL_ERROR
        text = hidden("".join(traceback.format_exception(error)), self.secrets)
        saved = atomic_file.write(file, text)
        where = f" Its traceback is in {file}." if saved else ""
        sentence = f"internal error ({type(error).__name__}); report it with `dsv4 bundle --support`.{where}"
        return ExitReason(exit_cause.INTERNAL_ERROR, sentence)

    def in_passing(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """Log an error in the background, which ends nothing; the first one only, as it may repeat."""
        error = context.get("exception")
        if isinstance(error, Exception) and not self._erred:
            self._erred = True
            log.warning(self.internal_error(error).sentence)

    def _begin(self, plan: str) -> None:
        self.record = self.record.begin(plan)
        self.health.starts = self.record.starts
        crash_loop.save(self.context.run_folder, self.record)

    async def _back_off(self, supervise: Supervise) -> bool:
        """Wait as long as the crash-loop breaker requires, or until a signal to stop; return whether it did."""
        seconds = crash_loop.backoff(self.record.failures, supervise.backoff_first, supervise.backoff_most)
        if not seconds:
            return False
        self.health.enter("backoff")
        self.health.backoff_until = time.monotonic() + seconds
        log.info(
            f"crash-loop breaker: {self.record.failures} starts in a row failed (the last: {self.record.cause});"
            f" the next one begins in {seconds:.0f} s, or at once if the settings change."
        )
        await first_of(self.signals.stop.wait(), asyncio.sleep(seconds))
        self.health.backoff_until = None
        return True


@contextlib.asynccontextmanager
async def lifecycle(context: ServeContext) -> AsyncIterator[Lifecycle]:
    """
    Answer health probes during the block, then report why it ended and set `exit_status`.

    The block sets `exit_reason`, or raises UserError or StartEnded. Raise ConfigError or HostError where the health
    port or the run directory is unavailable.
    """
    procfs.adopt_orphans()
    procfs.raise_open_files()
    with stop_signals.handled() as signals, run_folder.owned(context.run_folder):
        life = Lifecycle(context, signals)
        asyncio.get_running_loop().set_exception_handler(life.in_passing)
        async with serving(health_app(life.health), context.health_host, context.health_port) as port:
            log.info(f"health on port {port}: /startupz /livez /readyz")
            try:
                yield life
            except StartEnded as ended:
                life.exit_reason = ended.reason
            except UserError as error:
                if life.health.phase == "resolving":
                    life.exit_reason = await life.refuse(error)
                else:  # the host or the checkpoint cannot be read, or vLLM cannot be started
                    life.exit_reason = ExitReason(exit_cause.by_status(error.exit_status), str(error))
            except Exception as error:  # nothing ends without its last words
                known = of_file(error)
                life.exit_reason = ExitReason(exit_cause.HOST, str(known)) if known else life.internal_error(error)
            assert life.exit_reason is not None
            life.finish(life.exit_reason)
