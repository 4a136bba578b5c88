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
    """The GPUs' hardware and how it is known; `count` and `topology` are None where only a name was given."""

    hardware: str
    origin: str
    count: int | None = None
    topology: Topology | None = None
    profile_file: ProfileFile[Hardware] | None = None
    """If set, used in place of the catalog's hardware of that name."""
    only: tuple[int, ...] = ()
    """NVML's indexes of the GPUs that were chosen, where others are visible too."""
