"""How much longer a busy or slow machine may take: limits of tests are stretched by this factor."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIMIT = 5.0
"""A limit that nothing reaches costs nothing, so that it is wide on every machine: the load says how many wait, not how fast it is."""


def slowness(most: float = math.inf) -> float:
    """
    The processes that wait for each core, threefold for a process of niceness 10; `LIMIT` at least.

    `most` bounds it where a test waits for all of the time, and not only at most for so long; it then begins at 1.
    """
    waiting = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    return min(most, max(LIMIT if most == math.inf else 1.0, waiting * (1 + os.nice(0) / 5)))


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until it holds; return whether it did within so many seconds. A busy machine gets longer."""
    ends = time.monotonic() + seconds * slowness()
    while not (held := condition()) and time.monotonic() < ends:
        time.sleep(0.05)
    return held


@contextmanager
def hang_ends_the_run(seconds: float = 20) -> Iterator[None]:
    """End this process by SIGALRM where the block hangs in a system call that no exception interrupts."""
    signal.alarm(int(seconds * slowness()))
    try:
        yield
    finally:
        signal.alarm(0)
