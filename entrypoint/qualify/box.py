"""What every stage knows: the plan, this machine, the small checkpoint, and the time that remains."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..bench.options import ServeOptions
from ..doctor.report import DoctorReport
from ..machine.machine import Machine
from ..plan import Plan
from ..resolve.select import Selection
from .sizes import Sizes

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = "cpu"
"""The hardware file for machines without a GPU."""


@dataclass(frozen=True)
class Box:
    """One request, resolved on this machine; `serve` has its names. `folder` keeps checkpoints between runs."""

    selection: Selection
    plan: Plan
    machine: Machine
    serve: ServeOptions
    environ: Mapping[str, str]
    folder: Path
    until: float
    """When the time is used up, on the monotonic clock."""
    doctor: Callable[[], DoctorReport]
    """Runs every check of the doctor but the all-reduce."""

    @property
    def remaining(self) -> float:
        """Seconds that remain."""
        return self.until - time.monotonic()

    @property
    def on_cpu(self) -> bool:
        """Whether the plan needs no GPU."""
        return self.selection.hardware.name == CPU

    @property
    def context(self) -> int:
        """Tokens of a request at most; 0 where vLLM decides."""
        value = self.plan.value("max-model-len")
        return value if isinstance(value, int) else 0

    @property
    def requests(self) -> int:
        """Requests that the plan runs at once; vLLM's default is not counted on."""
        value = self.plan.value("max-num-seqs")
        return value if isinstance(value, int) else 1

    @property
    def sizes(self) -> Sizes:
        """How much is asked."""
        return Sizes.cpu() if self.on_cpu else Sizes()
