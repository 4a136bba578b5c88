"""The traffic of a replica over the last seconds, from successive readings of vLLM's counters."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ..entrypoint.client.counters import Counters

RATE, FIRST_TOKEN = 10.0, 300.0
"""Seconds over which tokens are counted, and over which the time to the first token is averaged."""


@dataclass(frozen=True)
class Traffic:
    """Requests and the used share of the KV cache as last read; tokens a second; None where nothing is known yet."""

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    generated_rate: float | None = None
    prompt_rate: float | None = None
    first_token: float | None = None
    """Mean seconds to the first token of the requests that got theirs in the window, canaries included."""


class TrafficWindow:
    """A sliding window of readings; lower counts than before belong to a restarted server, and begin a new one."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, Counters]] = deque()

    def feed(self, now: float, counters: Counters) -> Traffic:
        """Take one reading and return the traffic; `now` does not go back."""
        readings = self._readings
        if readings and counters.generated < readings[-1][1].generated:
            readings.clear()
        readings.append((now, counters))
        while len(readings) > 1 and readings[1][0] <= now - FIRST_TOKEN:
            readings.popleft()
        then, before = next(one for one in reversed(readings) if one[0] <= now - RATE or one is readings[0])
        seconds, oldest = now - then, readings[0][1]
        firsts = counters.first_tokens - oldest.first_tokens
        waited = counters.first_token_seconds - oldest.first_token_seconds
        return Traffic(
            counters.running,
            counters.waiting,
            counters.kv_usage / max(1, counters.engines),
            (counters.generated - before.generated) / seconds if seconds else None,
            (counters.prompt - before.prompt) / seconds if seconds else None,
            waited / firsts if firsts > 0 else None,
        )
