"""Classify why a replica ended: a cause with its exit status, a message, and the root cause line of vLLM's log."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import sentences
from ..exit_status import ExitStatus
from . import known_failures
from .known_failures import KnownFailure
from .root_cause import LogNotes, RootCause
from .situation import Situation
from .standing import Standing
from .xid import Xid


@dataclass(frozen=True)
class Cause:
    """A kind of exit; `sentence` is its message without a period, with `{phase}` as a placeholder."""

    name: str
    exit_status: int
    sentence: str


DRAINED = Cause("drained", ExitStatus.DONE, "vLLM was stopped and shut down cleanly")
USAGE = Cause("usage", ExitStatus.USAGE, "the command line is not valid")
HOST = Cause("host", ExitStatus.HOST, "this host prevents vLLM from running (detected while {phase})")
CONFIG = Cause("config", ExitStatus.CONFIG, "vLLM rejected this configuration (detected while {phase})")
INTERNAL_ERROR = Cause("internal-error", ExitStatus.INTERNAL_ERROR, "an error of dsv4 itself")
OUT_OF_MEMORY_AT_LOAD = Cause("out-of-memory-at-load", ExitStatus.OUT_OF_MEMORY_AT_LOAD, "memory ran out while {phase}")
OUT_OF_MEMORY_LATER = Cause("out-of-memory-later", ExitStatus.OUT_OF_MEMORY_LATER, "memory ran out while serving")
ENGINE_DIED = Cause("engine-died", ExitStatus.ENGINE_DIED, "vLLM's engine died while serving")
HUNG = Cause("hung", ExitStatus.HUNG, "vLLM's engine stopped making progress")
STALLED = Cause("stalled", ExitStatus.STALLED, "the start stopped making progress")
GATE_REFUSED = Cause("gate-refused", ExitStatus.GATE_REFUSED, "the draft head failed its gate")
CORRUPTED = Cause("corrupted", ExitStatus.CORRUPTED, "answers are corrupted")
START_FAILED = Cause("start-failed", ExitStatus.START_FAILED, "vLLM ended while {phase}")
NOT_EXECUTABLE = Cause("not-executable", ExitStatus.NOT_EXECUTABLE, "vLLM cannot be executed")
NOT_FOUND = Cause("not-found", ExitStatus.NOT_FOUND, "vLLM was not found")
CUT = Cause("cut", ExitStatus.CUT, "vLLM was stopped with requests still running")

CAUSES = (
    DRAINED,
    USAGE,
    HOST,
    INTERNAL_ERROR,
    CONFIG,
    OUT_OF_MEMORY_AT_LOAD,
    OUT_OF_MEMORY_LATER,
    ENGINE_DIED,
    HUNG,
    STALLED,
    GATE_REFUSED,
    CORRUPTED,
    START_FAILED,
    NOT_EXECUTABLE,
    NOT_FOUND,
    CUT,
)

_SILENT = "process-gone"
"""The failure of a process that ended without a message: a limit that was reached outranks its remedy, a guess."""


@dataclass(frozen=True)
class ExitReason:
    """Why a replica ended. `sentence` ends with a period, given or not; `logged`: it is already in our log."""

    cause: Cause
    sentence: str
    root: str = ""
    logged: bool = False
    failure: str = ""
    """The name in failures.toml; empty for an unknown failure."""
    xids: tuple[Xid, ...] = ()
    """What the driver reported of the GPUs meanwhile, the likeliest cause first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentence", sentences.ended(self.sentence))

    def then(self, more: str, **changes: Any) -> ExitReason:
        """Return it with more sentences, and other changes."""
        return replace(self, sentence=f"{self.sentence} {more}".strip(), **changes)

    @property
    def failed(self) -> bool:
        """Whether it counts as a failed start: anything but a requested stop does."""
        return self.cause not in (DRAINED, CUT)


def by_status(status: int) -> Cause:
    """Return the cause with this exit status; `start-failed` for an unknown one."""
    return next((cause for cause in CAUSES if cause.exit_status == status), START_FAILED)


def classify(
    notes: LogNotes, status: int, *, phase: str, was_ready: bool, situation: Situation | None = None
) -> ExitReason:
    """
    Return why vLLM ended by itself. `status` is its exit status; minus N, or 128 + N, when signal N ended it.

    A known failure counts only in lines that vLLM logged as the end of a process, never in those of level INFO.
    """
    if notes.stopped and status == 0:  # the status is 0, too, when the engine died
        return ExitReason(DRAINED, DRAINED.sentence)
    number = -status if status < 0 else status - 128
    by_signal = signal.Signals(number).name if number in set(signal.Signals) else ""
    roots = notes.roots()
    root = roots[0] if roots else None
    if by_signal and not _outranks(root, by_signal):
        roots = [RootCause(f"vLLM was ended by {by_signal}", (), Standing.CAUSE, fatal=True)]
    where = replace(situation or Situation(), port=notes.port, serving=was_ready)
    text, failure = _known(roots)
    if where.limit and not was_ready and (failure is None or failure.name == _SILENT):
        failure = known_failures.too_few_processes()  # it has many messages, some without a reason
    cause = of_known(failure, was_ready=was_ready)
    if failure is None and was_ready and by_signal == "SIGTERM":
        cause = CUT
    sentence = cause.sentence.format(phase=phase)
    if failure is None and cause in (START_FAILED, ENGINE_DIED):
        sentence += f" ({by_signal or f'exit status {status}'})"
    unknown = "" if cause is CUT else known_failures.of_gpu_errors(where, known_failures.REPORT)
    advice = failure.advice(where, text) if failure else unknown
    return ExitReason(cause, sentence, text, failure=failure.name if failure else "", xids=where.xids).then(advice)


def explain(reason: ExitReason, notes: LogNotes, situation: Situation | None = None) -> ExitReason:
    """Add the known cause of a stall or a hang, by the last line of the log or by waiting ranks, and GPU errors."""
    where = replace(situation or Situation(), port=notes.port, serving=reason.cause is HUNG)
    for text in (reason.sentence, notes.waiting):
        if failure := known_failures.find(text, STALLED.name, HUNG.name):
            return reason.then(failure.advice(where, text), failure=failure.name, xids=where.xids)
    if reason.cause is STALLED and where.limit:  # a rank waits for one that could not start its threads
        advice = known_failures.too_few_processes().advice(where)
        return reason.then(advice, failure="too-few-processes", xids=where.xids)
    if reason.cause not in (HUNG, STALLED) and not where.xids:
        return reason
    return reason.then(known_failures.of_gpu_errors(where, known_failures.REPORT), xids=where.xids)


def _outranks(root: RootCause | None, by_signal: str) -> bool:
    """Tell whether a line of the log says more than the signal that ended vLLM; nothing follows SIGKILL but echoes."""
    if root is None or not root.fatal or root.standing is Standing.ECHO:
        return False
    return root.standing is Standing.CAUSE or by_signal != "SIGKILL"


def _known(roots: Sequence[RootCause]) -> tuple[str, KnownFailure | None]:
    """
    Return the line to report, and the known failure in it.

    Another exception of its chain may be known instead; where there are only echoes, any of them.
    """
    if not roots:
        return "", None
    texts = [roots[0].text, *roots[0].others]
    if roots[0].standing is Standing.ECHO:
        texts = [root.text for root in roots]
    found = ((text, known_failures.find(text)) for text in texts)
    return next(((text, failure) for text, failure in found if failure), (texts[0], None))


def of_known(failure: KnownFailure | None, *, was_ready: bool) -> Cause:
    """Return the cause that a known failure stands for, before and after the engine was ready."""
    otherwise = ENGINE_DIED if was_ready else START_FAILED
    if failure is None:
        return otherwise
    if failure.cause == "out-of-memory":
        return OUT_OF_MEMORY_LATER if was_ready else OUT_OF_MEMORY_AT_LOAD
    cause = next((cause for cause in CAUSES if cause.name == failure.cause), otherwise)
    return otherwise if cause is CONFIG and was_ready else cause  # it had started with this configuration
