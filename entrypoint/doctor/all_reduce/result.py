"""The result of a timed all-reduce."""

from __future__ import annotations

from dataclasses import dataclass

START = "importing torch"
"""The first step of every rank."""


@dataclass(frozen=True)
class AllReduceTiming:
    """One size: bytes, the slowest rank's median seconds, and bus bandwidth in bytes/s (2 (n-1)/n of size / time)."""

    bytes: int
    seconds: float
    bandwidth: float


@dataclass(frozen=True)
class AllReduceResult:
    """
    The result of an all-reduce.

    `hung_at` is the step at which every rank fell silent, `ran_out_at` the step at which time ran out while they still
    moved, `behind` the ranks that were furthest behind, and `message` the error of a rank that ended by itself.
    """

    ok: bool
    ranks: int
    backend: str
    wall: float
    """Seconds from the start of the first rank to the end of the last."""
    timings: tuple[AllReduceTiming, ...] = ()
    hung_at: str = ""
    ran_out_at: str = ""
    behind: tuple[int, ...] = ()
    message: str = ""

    def __str__(self) -> str:
        """Return a short description."""
        if self.ok:
            return "completed"
        what = f"hung at: {self.hung_at}" if self.hung_at else f"time ran out at: {self.ran_out_at}"
        names = ", ".join(map(str, self.behind))
        return self.message or f"{what} (rank {names}) after {self.wall:.0f} s"

    @property
    def inconclusive(self) -> bool:
        """Whether time ran out, or a rank did not get past the import of torch: nothing is known about the GPUs."""
        return bool(self.ran_out_at) or f"at: {START}" in self.message
