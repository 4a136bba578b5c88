"""What a run will take, and how far it is."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)
EVERY = 10.0
"""Seconds between two lines of progress."""


class EvalProgress:
    """Counts answers and logs how far the run is, every EVERY seconds and at the end."""

    def __init__(self, planned: int, left: int, answer_tokens: int) -> None:
        self.planned, self.left, self.answer_tokens = planned, left, answer_tokens
        self.done = self.cut = self.tokens = 0
        self._began = self._logged = time.monotonic()

    def plan(self, rate: tuple[float, str] | None) -> str:
        """Return what is to come; `rate` is output tokens per second, and the result that it is read from."""
        there = self.planned - self.left
        text = f"{self.left} requests" + (f" ({there} of {self.planned} are answered)" if there else "")
        text += f", at most {self.left * self.answer_tokens:,} tokens of answers ({self.answer_tokens:,} each)"
        if rate is None:
            return f"{text}; minutes are not known without a result of `dsv4 bench` in --out"
        minutes = self.left * self.answer_tokens / rate[0] / 60
        return f"{text}; at most {minutes:,.0f} minutes at {rate[0]:.0f} tokens/s ({rate[1]})"

    def count(self, tokens: int, *, cut: bool) -> None:
        """Count one answer."""
        self.done += 1
        self.cut += cut
        self.tokens += tokens
        now = time.monotonic()
        if now - self._logged < EVERY and self.done < self.left:
            return
        self._logged = now
        spent = now - self._began
        log.info(
            f"{self.planned - self.left + self.done} of {self.planned} answered, {self.cut} cut,"
            f" {self.tokens / spent:.0f} tokens/s, {spent / self.done * (self.left - self.done) / 60:.0f} minutes to go"
        )
