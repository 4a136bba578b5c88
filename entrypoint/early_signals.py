"""
Signals from the first moment on: they are recorded until the supervisor takes them over.

Python takes a second to import what `dsv4 serve` needs. A signal in that second would end the process with the
kernel's default, without the documented exit status.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""They end a replica."""
HARMLESS = (
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR),
    *(signal.SIGXCPU, signal.SIGSTKFLT, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)),
)
"""By default they would end the process without a word; they are only noted."""
_pending: list[int] = []


def catch() -> None:
    """Record every signal of STOP and HARMLESS from now on."""
    for number in (*STOP, *HARMLESS):
        signal.signal(number, _record)


def take() -> list[int]:
    """Return the signals recorded so far, and forget them."""
    taken = _pending[:]
    del _pending[: len(taken)]
    return taken


def release() -> None:
    """Restore the defaults, and let the recorded signals have their effect."""
    for number in (*STOP, *HARMLESS):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for number in take():
        os.kill(os.getpid(), number)


def name(number: int) -> str:
    """Return `SIGTERM` for 15; real-time signals have only numbers."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def name_of_status(status: int | None) -> str:
    """Return the signal that ended a process with this status, -N or 128 + N; empty when none did."""
    number = 0 if status is None else -status if status < 0 else status - 128
    return name(number) if number > 0 else ""


def _record(number: int, _frame: FrameType | None) -> None:
    _pending.append(number)
