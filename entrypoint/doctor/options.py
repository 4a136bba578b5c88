"""Options of the doctor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class DoctorOptions:
    """How much is checked; `serve` and `dsv4 doctor` differ only in these options."""

    environ: Mapping[str, str]
    collective: bool | None = None
    """Whether an all-reduce is tried; None: where GPUs have no NVLink between them."""
    compare: bool = False
    """Whether peer access is tried too, where the plan avoids it only because it is unproven."""
    serving: bool = False
    """Whether a start follows: the health server already has its port, and a host without a driver is a problem."""
    skip: frozenset[str] = frozenset()
    """Names of checks that are not run."""
