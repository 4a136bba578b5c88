"""How many examples Hypothesis makes up: 100 in `make test`, fewer in `make test-fast`."""

from __future__ import annotations

from hypothesis import settings

FULL, QUICK = 100, 40


def examples(of_a_full_run: int) -> int:
    """The number for a test that wants another one than 100: as many fewer in a quick run."""
    return of_a_full_run * settings().max_examples // FULL
