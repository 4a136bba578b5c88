"""Every check of the doctor, collected from the modules that define them."""

from __future__ import annotations

from collections.abc import Mapping

from ..memory import checks as memory
from ..problem import AnyCheck, checks_in
from .checks import access, checkpoint, collective, driver, gpu, host, limit, offloading, topology

GPUS = checks_in(driver, gpu)
HOST = checks_in(limit, host, offloading)
TOPOLOGY = checks_in(topology)
COLLECTIVE = checks_in(collective)
ACCESS = checks_in(access)
GROUPS: Mapping[str, tuple[AnyCheck, ...]] = {
    "Host": GPUS + HOST,
    "Topology": TOPOLOGY,
    "All-reduce": COLLECTIVE,
    "Access": ACCESS,
    "Checkpoint": checkpoint.CHECKS,
    "Memory": memory.CHECKS,
}
NAMES = frozenset(check.name for checks in GROUPS.values() for check in checks)


def host_checks(*, gpus: bool) -> tuple[AnyCheck, ...]:
    """Return the checks of a host, for a plan that needs GPUs or none."""
    return GPUS + HOST if gpus else HOST
