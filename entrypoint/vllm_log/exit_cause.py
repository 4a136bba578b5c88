"""Why a replica ended: a cause with its exit status, a sentence for a person, and the root cause line of vLLM's log."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..exit_status import ExitStatus
from . import known_failures
from .known_failures import Failure
from .root_cause import Note, Notes


@dataclass(frozen=True)
class Cause:
    """A kind of ending; `says` opens its sentence, with the phase in which it came."""

    name: str
    exit_status: int
    says: str


DRAINED = Cause("drained", ExitStatus.DONE, "vLLM was asked to stop, and ended in order")
USAGE = Cause("usage", ExitStatus.USAGE, "the command line is not understood")
HOST = Cause("host", ExitStatus.HOST, "this host does not let vLLM run, seen while {phase}")
CONFIG = Cause("config", ExitStatus.CONFIG, "vLLM does not take this configuration, seen while {phase}")
OUT_OF_MEMORY_AT_LOAD = Cause("out-of-memory-at-load", ExitStatus.OUT_OF_MEMORY_AT_LOAD, "memory ran out while {phase}")
OUT_OF_MEMORY_LATER = Cause("out-of-memory-later", ExitStatus.OUT_OF_MEMORY_LATER, "memory ran out while serving")
ENGINE_DIED = Cause("engine-died", ExitStatus.ENGINE_DIED, "vLLM's engine died while serving")
HUNG = Cause("hung", ExitStatus.HUNG, "vLLM's engine stopped getting on")
STALLED = Cause("stalled", ExitStatus.STALLED, "the start stopped getting on")
GATE_REFUSED = Cause("gate-refused", ExitStatus.GATE_REFUSED, "the draft head did not pass its gate")
CORRUPTED = Cause("corrupted", ExitStatus.CORRUPTED, "answers are corrupted")
START_FAILED = Cause("start-failed", ExitStatus.START_FAILED, "vLLM ended while {phase}")
NOT_EXECUTABLE = Cause("not-executable", ExitStatus.NOT_EXECUTABLE, "vLLM cannot be executed")
NOT_FOUND = Cause("not-found", ExitStatus.NOT_FOUND, "vLLM is not there")
CUT = Cause("cut", ExitStatus.CUT, "vLLM was stopped with requests still running")

CAUSES = (
    DRAINED,
    USAGE,
    HOST,
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


@dataclass(frozen=True)
class Ending:
    """How a replica ended. `said` means that the sentence was printed already."""

    cause: Cause
    sentence: str
    root: str = ""
    said: bool = False
    failure: str = ""
    """The name in failures.toml; empty when it is none of the known ones."""


def by_status(status: int) -> Cause:
    """Return the cause with this exit status; `start-failed` for one that stands for none."""
    return next((cause for cause in CAUSES if cause.exit_status == status), START_FAILED)


def classify(lines: Iterable[str], status: int, *, phase: str, was_ready: bool) -> Ending:
    """Say why a vLLM with this whole log ended; see `Memory.classify`."""
    memory = Memory()
    for line in lines:
        memory.feed(line)
    return memory.classify(status, phase=phase, was_ready=was_ready)


class Memory:
    """What is remembered of one vLLM's log while it streams by."""

    def __init__(self) -> None:
        self._notes = Notes()

    def feed(self, line: str) -> None:
        """Take one line of the log, from either of its streams."""
        self._notes.feed(line)

    def classify(self, status: int, *, phase: str, was_ready: bool) -> Ending:
        """
        Say why vLLM ended by itself. `status` is its exit status; minus N, or 128 + N, when signal N ended it.

        `phase` is the one it was in, `was_ready` whether it had been ready. A known failure counts only in lines that
        vLLM logged as the end of a process, never in what it logs at level INFO.
        """
        if self._notes.stopped and status == 0:  # the status is 0, too, when the engine died
            return Ending(DRAINED, f"{DRAINED.says}.")
        number = -status if status < 0 else status - 128
        by_signal = signal.Signals(number).name if number in set(signal.Signals) else ""
        notes = self._notes.roots()
        if by_signal and not any(note.fatal and not note.echo for note in notes):
            notes = [Note(f"vLLM was ended by {by_signal}", number=0, fatal=True)]
        found = ((note, failure) for note in notes if (failure := known_failures.find(note.text)))
        note, failure = next(found, (notes[0] if notes else None, None))
        cause = _cause(failure, was_ready=was_ready)
        if failure is None and was_ready and by_signal == "SIGTERM":
            cause = CUT
        said = cause.says.format(phase=phase)
        if failure is None and cause in (START_FAILED, ENGINE_DIED):
            said += f" ({by_signal or f'exit status {status}'})"
        sentence = f"{said}. {failure.advice(self._notes.port) if failure else ''}".strip()
        return Ending(cause, sentence, note.text if note else "", failure=failure.name if failure else "")

    def explain(self, ending: Ending) -> Ending:
        """Add what is known of a stall or a hang that was found from outside, by the last line or by waiting ranks."""
        for seen in (ending.sentence, self._notes.waiting):
            if failure := known_failures.find(seen, STALLED.name, HUNG.name):
                sentence = f"{ending.sentence} {failure.advice(self._notes.port)}"
                return replace(ending, sentence=sentence, failure=failure.name)
        return ending


def _cause(failure: Failure | None, *, was_ready: bool) -> Cause:
    """Return the cause that a known failure stands for, before and after the engine was ready."""
    otherwise = ENGINE_DIED if was_ready else START_FAILED
    if failure is None:
        return otherwise
    if failure.cause == "out-of-memory":
        return OUT_OF_MEMORY_LATER if was_ready else OUT_OF_MEMORY_AT_LOAD
    found = next((cause for cause in CAUSES if cause.name == failure.cause), otherwise)
    return otherwise if found is CONFIG and was_ready else found  # it took the configuration, and ran with it
