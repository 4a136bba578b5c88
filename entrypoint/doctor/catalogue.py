"""Every check of the doctor, by what it looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from dsv4_serve.entrypoint.doctor import (
    checkpoint_checks,
    collective_checks,
    driver_checks,
    gpu_checks,
    host_checks,
    limit_checks,
    memory,
    topology_checks,
)
from dsv4_serve.entrypoint.doctor.problem import Check, name_of

HOST = cast("tuple[Check, ...]", driver_checks.CHECKS + gpu_checks.CHECKS + limit_checks.CHECKS + host_checks.CHECKS)
TOPOLOGY = cast("tuple[Check, ...]", topology_checks.CHECKS)
COLLECTIVE = cast("tuple[Check, ...]", collective_checks.CHECKS)
GROUPS: Mapping[str, tuple[Check, ...]] = {
    "Host": HOST,
    "Topology": TOPOLOGY,
    "All-reduce": COLLECTIVE,
    "Checkpoint": checkpoint_checks.CHECKS,
    "Memory": memory.CHECKS,
}
NAMES = frozenset(name_of(check) for checks in GROUPS.values() for check in checks)
