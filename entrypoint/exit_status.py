"""Every exit status of `dsv4`. docs/reference/exit-statuses.md shows this table."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class ExitStatus(IntEnum):
    """A status and its meaning. 64 to 78 follow sysexits.h; those above 125 are as a shell reports them."""

    DONE = 0, "Success. For `serve`: it was stopped after every running request was answered whole (cause `drained`)."
    NO = 1, "A check failed, something is not ready, or the command could not finish."
    USAGE = 64, "The command line is not valid."
    DATA = 65, "`patch`: the series or a patch is malformed."
    HOST = 69, "The host prevents it: a port is in use, a driver is too old, a folder is not writable."
    INTERNAL_ERROR = 70, "An error of `dsv4` itself. For `serve`, its traceback is in the run directory."
    CONFIG = 78, "A setting or the checkpoint is wrong; the message names it."
    OUT_OF_MEMORY_AT_LOAD = 80, "Memory ran out during startup."
    OUT_OF_MEMORY_LATER = 81, "Memory ran out after the replica was ready."
    ENGINE_DIED = 82, "A process of vLLM, or another node, ended after the replica was ready, or during its drain."
    HUNG = 83, "The engine had work but made no progress; its stacks are in the run directory."
    STALLED = 84, "A startup phase made no progress; its stacks are in the run directory."
    GATE_REFUSED = 85, "The draft head drafts noise or nothing."
    CORRUPTED = 86, "Answers are garbled, or change when other requests run at the same time."
    START_FAILED = 87, "vLLM ended during startup for another reason."
    NOT_EXECUTABLE = 126, "The program (for `serve`, vLLM) exists but cannot be executed."
    NOT_FOUND = 127, "The program (for `serve`, vLLM) was not found."
    INTERRUPTED = 130, "Ctrl-C ended the command."
    KILLED = 137, "It was killed with SIGKILL: a memory limit was exceeded, or the stop took too long."
    PIPE_CLOSED = 141, "The reader of the output closed the pipe."
    CUT = 143, "SIGTERM ended it. For `serve`: running requests were cut off, or it is not known that they were not."

    meaning: str

    def __new__(cls, number: int, meaning: str) -> Self:
        """Make a member from its number."""
        status = int.__new__(cls, number)
        status._value_ = number
        status.meaning = meaning
        return status

    @property
    def label(self) -> str:
        """Its name in `last-exit.json` and in the documentation."""
        return self.name.lower().replace("_", "-")


def of_signal(number: int) -> int:
    """Return the status of a process that a signal ended, as a shell reports it."""
    return 128 + number
