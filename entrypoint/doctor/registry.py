"""Every check of the doctor, by what it looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ..memory import checks as memory
from ..problem import Check, name_of
from .checks import checkpoint, collective, driver, gpu, host, limit, topology

HOST = cast("tuple[Check, ...]", driver.CHECKS + gpu.CHECKS + limit.CHECKS + host.CHECKS)
TOPOLOGY = cast("tuple[Check, ...]", topology.CHECKS)
COLLECTIVE = cast("tuple[Check, ...]", collective.CHECKS)
GROUPS: Mapping[str, tuple[Check, ...]] = {
    "Host": HOST,
    "Topology": TOPOLOGY,
    "All-reduce": COLLECTIVE,
    "Checkpoint": checkpoint.CHECKS,
    "Memory": memory.CHECKS,
}
NAMES = frozenset(name_of(check) for checks in GROUPS.values() for check in checks)
