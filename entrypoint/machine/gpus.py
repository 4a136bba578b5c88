"""The GPUs that a plan is resolved for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..catalog.catalog import ProfileFile
    from ..catalog.schema import Hardware
    from .topology import Topology


@dataclass(frozen=True)
class HostGpus:
    """Which hardware the GPUs are and how that is known; their number and topology are None where only a name is."""

    hardware: str
    origin: str
    count: int | None = None
    topology: Topology | None = None
    profile_file: ProfileFile[Hardware] | None = None
    """Used in place of the hardware of that name."""
