"""Draft acceptance of live traffic: the share of accepted draft tokens over the last seconds, from counters."""

from __future__ import annotations

from collections import deque

from .state import Acceptance


class Window:
    """
    A sliding window of readings of counters that only grow, and start again at 0 with the server.

    `seconds` is its length. The newest reading that is at least that old is kept for comparison.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._readings: deque[tuple[float, Acceptance]] = deque()
        self._fruitful = 0  # draft tokens up to the last reading with another accepted one

    def add(self, now: float, drafted: int, accepted: int, drafts: int = 0, at: tuple[int, ...] = ()) -> None:
        """
        Take a reading of vLLM's counters, as in Acceptance; `now` does not go back.

        Lower counters than before belong to a restarted server, and earlier readings are dropped.
        """
        readings = self._readings
        if readings and (drafted < readings[-1][1].drafted or accepted < readings[-1][1].accepted):
            readings.clear()
            readings.append((now, Acceptance(0, 0)))
            self._fruitful = 0
        if not readings or accepted != readings[-1][1].accepted:
            self._fruitful = drafted
        readings.append((now, Acceptance(drafted, accepted, drafts, at)))
        while len(readings) > 1 and readings[1][0] <= now - self._seconds:
            readings.popleft()

    def fruitless(self) -> int:
        """Return the newest draft tokens of which not one was accepted."""
        return self._readings[-1][1].drafted - self._fruitful if self._readings else 0

    def acceptance(self) -> Acceptance:
        """Return the draft tokens between the oldest and the newest reading."""
        if not self._readings:
            return Acceptance(0, 0)
        return self._readings[-1][1].since(self._readings[0][1])

    def below(self, floor: float, least: int) -> bool:
        """Tell whether the share is below `floor`; never with fewer than `least` draft tokens in the window."""
        acceptance = self.acceptance()
        return acceptance.ratio is not None and acceptance.drafted >= least and acceptance.ratio < floor
