"""Limits of each key holder: requests in any 60 seconds, and requests at once. Standard library only."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..entrypoint.key_file import KeyHolder

MINUTE = 60.0


@dataclass(frozen=True)
class OverLimit:
    """Which limit a request exceeds, how high it is, and the seconds after which it is worth another try."""

    limit: Literal["requests", "concurrent"]
    most: int
    retry_after: int

    @property
    def sentence(self) -> str:
        """Tell the client."""
        what = "a minute" if self.limit == "requests" else "at once"
        return f"This key may send {self.most} request{'s' * (self.most != 1)} {what}. Retry in {self.retry_after} s."


class KeyLimits:
    """Counts by name, in one process: two keys of one name share its limits. A refused request does not count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: Counter[str] = Counter()
        self._admitted: defaultdict[str, deque[float]] = defaultdict(deque)

    def admit(self, holder: KeyHolder) -> OverLimit | None:
        """Count a request until `release`, or return the limit that it exceeds."""
        if holder.concurrent is not None and self._running[holder.name] >= holder.concurrent:
            return OverLimit("concurrent", holder.concurrent, 1)
        if holder.per_minute is not None:
            now, times = self._clock(), self._admitted[holder.name]
            while times and times[0] <= now - MINUTE:
                times.popleft()
            if len(times) >= holder.per_minute:
                left = times[len(times) - holder.per_minute] + MINUTE - now
                return OverLimit("requests", holder.per_minute, max(1, math.ceil(left)))
            times.append(now)
        self._running[holder.name] += 1
        return None

    def release(self, holder: KeyHolder) -> None:
        """A request has ended, or its client is gone."""
        self._running[holder.name] -= 1
