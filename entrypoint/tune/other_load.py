"""How many of the host's cores other processes use during a measurement: in it, they are noise."""

from __future__ import annotations

import contextlib
import os
import time

from .. import procfs

SHARE, LEAST = 0.05, 0.5
"""Of all cores, and cores, below which nothing is said: the load generator's clock and the host's own services."""


class OtherLoad:
    """Counts from when it is made; the tree of `root`, a living process and this one by default, is not counted."""

    def __init__(self, root: int | None = None) -> None:
        self._root = root or os.getpid()
        self._began, self._before = time.monotonic(), self._seconds()

    def sentence(self) -> str:
        """Return what to tell of it; empty where it is little."""
        cores, count = self.cores(), os.cpu_count() or 1
        if cores < max(LEAST, SHARE * count):
            return ""
        return f"other processes used {cores:.1f} of {count} cores meanwhile, so its speed may be too low"

    def cores(self) -> float:
        """Return the cores that were busy for others, on average; time that a hypervisor took is theirs."""
        passed = time.monotonic() - self._began
        return max(0.0, self._seconds() - self._before) / passed if passed else 0.0

    def _seconds(self) -> float:
        return _busy() - _of_tree(self._root)


def _busy() -> float:
    import psutil

    spent = psutil.cpu_times()._asdict()
    return float(sum(spent.get(kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal")))


def _of_tree(root: int) -> float:
    import psutil

    total = 0.0
    for one in (psutil.Process(root), *procfs.descendants(root)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(one.cpu_times()[:4])  # user and system, of itself and of children that have ended
    return total
