"""
Judge whether the engine makes progress, by successive readings of its counters. Nothing here polls or waits.

Any change of a counter is progress; `counters.py` says which of them change during the prefill of a long prompt. In a
hung engine `running` stays above 0 and nothing changes; the canary finds one that hung while idle.
"""

from __future__ import annotations

from ..entrypoint.client.counters import Counters


class EngineProgress:
    """
    The time of the last progress, and whether there is work.

    `at` is the time of that sign on the caller's clock, in seconds. An idle engine that answers counts as progress.
    """

    def __init__(self, now: float) -> None:
        self.at = now
        self.canary_out = False
        """Whether a canary is still without an answer."""
        self._last = Counters()
        self._lost = False

    @property
    def busy(self) -> bool:
        """Whether anything is outstanding: requests that run or wait, a canary, or the answer to a poll."""
        return self._lost or self.canary_out or self._has_requests()

    @property
    def work(self) -> str:
        """What is outstanding: `2 requests running, 1 waiting; a canary outstanding`; `none` when nothing is."""
        last = self._last
        outstanding = [f"{last.running} requests running, {last.waiting} waiting"] if self._has_requests() else []
        outstanding += ["a canary outstanding"] if self.canary_out else []
        outstanding += ["the API server does not answer"] if self._lost else []
        return "; ".join(outstanding) or "none"

    def feed(self, now: float, counters: Counters) -> None:
        """Take one reading; counters that start again at 0 are progress too."""
        moved = counters != self._last
        self._last, self._lost = counters, False
        if moved or not self.busy:
            self.at = now

    def lost(self, now: float) -> None:
        """
        Record a poll without an answer, which is never progress: the API server may hang as well as the engine.

        If nothing was outstanding before, the wait begins now.
        """
        if not self.busy:
            self.at = now
        self._lost = True

    def unknown(self, now: float) -> None:
        """Record that this process could not look, which says nothing about the engine: the wait begins again."""
        self.at = now

    def _has_requests(self) -> bool:
        return self._last.running > 0 or self._last.waiting > 0
