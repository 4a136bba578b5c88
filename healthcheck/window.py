"""Draft acceptance of live traffic: the share of accepted draft tokens over the last seconds, from counters."""

from __future__ import annotations

from collections import deque

from .state import Acceptance


class Window:
    """
    A sliding window of readings of two counters that only grow, and start again at 0 with the server.

    `seconds` is its length. The newest reading that is at least that old is kept for comparison.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._readings: deque[tuple[float, int, int]] = deque()
        self._fruitful = 0  # draft tokens up to the last reading with another accepted one

    def add(self, now: float, drafted: int, accepted: int) -> None:
        """
        Take a reading; `now` does not go back.

        Lower counters than before belong to a restarted server, and earlier readings are dropped.
        """
        readings = self._readings
        if readings and (drafted < readings[-1][1] or accepted < readings[-1][2]):
            readings.clear()
            readings.append((now, 0, 0))
            self._fruitful = 0
        if not readings or accepted != readings[-1][2]:
            self._fruitful = drafted
        readings.append((now, drafted, accepted))
        while len(readings) > 1 and readings[1][0] <= now - self._seconds:
            readings.popleft()

    def fruitless(self) -> int:
        """Return the newest draft tokens of which not one was accepted."""
        return self._readings[-1][1] - self._fruitful if self._readings else 0

    def acceptance(self) -> Acceptance:
        """Return the draft tokens between the oldest and the newest reading."""
        if not self._readings:
            return Acceptance(0, 0)
        (_, drafted, accepted), (_, now_drafted, now_accepted) = self._readings[0], self._readings[-1]
        return Acceptance(now_drafted - drafted, now_accepted - accepted)

    def below(self, floor: float, least: int) -> bool:
        """Tell whether the share is below `floor`; never with fewer than `least` draft tokens in the window."""
        acceptance = self.acceptance()
        return acceptance.ratio is not None and acceptance.drafted >= least and acceptance.ratio < floor
