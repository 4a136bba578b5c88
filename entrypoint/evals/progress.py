"""Log what a run will take, and its progress."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)
EVERY = 10.0
"""Seconds between two lines of progress."""


class EvalProgress:
    """Count answers, and log the progress every EVERY seconds and at the end."""

    def __init__(self, planned: int, remaining: int, answer_tokens: int) -> None:
        self.planned, self.remaining, self.answer_tokens = planned, remaining, answer_tokens
        self.done = self.cut = self.tokens = 0
        self._began = self._logged = time.monotonic()

    def plan(self, rate: tuple[float, str] | None) -> str:
        """Return the size of the run; `rate` is output tokens per second, and the result that gives it."""
        answered = self.planned - self.remaining
        text = f"{self.remaining} requests" + (
            f" ({answered} of {self.planned} are already answered)" if answered else ""
        )
        text += f", at most {self.remaining * self.answer_tokens:,} tokens of answers ({self.answer_tokens:,} each)"
        if rate is None:
            return f"{text}; the duration is unknown without a result of `dsv4 bench` in --out"
        minutes = self.remaining * self.answer_tokens / rate[0] / 60
        return f"{text}; at most {minutes:,.0f} minutes at {rate[0]:.0f} tokens/s ({rate[1]})"

    def count(self, tokens: int, *, cut: bool) -> None:
        """Count one answer."""
        self.done += 1
        self.cut += cut
        self.tokens += tokens
        now = time.monotonic()
        if now - self._logged < EVERY and self.done < self.remaining:
            return
        self._logged = now
        spent = now - self._began
        minutes = spent / self.done * (self.remaining - self.done) / 60
        log.info(
            f"{self.planned - self.remaining + self.done} of {self.planned} answered, {self.cut} cut,"
            f" {self.tokens / spent:.0f} tokens/s, {minutes:.0f} minutes to go"
        )
