"""How much longer a busy machine may take: limits of tests hold where a core is to spare, and are stretched elsewhere."""

from __future__ import annotations

import os


def slowness() -> float:
    """1 on an idle machine; the processes that wait for each core, threefold for a process of niceness 10."""
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
    return max(1.0, waiting) * (1 + os.nice(0) / 5)
