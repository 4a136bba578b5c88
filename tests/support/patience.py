"""How much longer a busy machine may take: limits of tests hold where a core is to spare, and are stretched elsewhere."""

from __future__ import annotations

import math
import os


def slowness(most: float = math.inf) -> float:
    """
    1 on an idle machine; the processes that wait for each core, threefold for a process of niceness 10.

    `most` bounds it where a test waits for all of the time, and not only at most for so long.
    """
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
    return min(most, max(1.0, waiting) * (1 + os.nice(0) / 5))
