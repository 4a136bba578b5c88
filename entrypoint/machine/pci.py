"""How PCI devices are connected on this host, from sysfs: IOMMU, access control (ACS) of their bridges, NUMA."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

Iommu = Literal["off", "passthrough", "translated", "unknown"]

_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_EXTENDED = 0x100  # where extended capabilities begin; an unprivileged user can read only the bytes below
_ACS = 0x000D  # PCI Express base specification, 7.7.11: capability id, control register at +6
_REDIRECT = 0b1100  # P2P request redirect and P2P completion redirect


def iommu(buses: Iterable[str], root: Path = Path("/")) -> Iommu:
    """Return the IOMMU's mode by the type of these devices' groups, else of any group; `off` when there is no IOMMU."""
    types = [root / "sys/bus/pci/devices" / _sysfs(bus) / "iommu_group/type" for bus in buses]
    kinds = {path.read_text().strip() for path in types if path.is_file()}
    if not kinds:
        kinds = {path.read_text().strip() for path in (root / "sys/kernel/iommu_groups").glob("*/type")}
    if kinds:
        return "passthrough" if kinds == {"identity"} else "translated"  # DMA, DMA-FQ
    units = root / "sys/class/iommu"
    if not units.is_dir():
        return "unknown"
    return "unknown" if any(units.iterdir()) else "off"


def redirecting(bus: str, root: Path = Path("/")) -> tuple[str, ...] | None:
    """Return the bridges above a device that send peer traffic up to the root; None when that cannot be read."""
    device = (root / "sys/bus/pci/devices" / _sysfs(bus)).resolve()
    bridges, readable = [], False
    for bridge in device.parents:
        if not _ADDRESS.fullmatch(bridge.name):
            break
        try:
            space = (bridge / "config").read_bytes()
        except OSError:
            continue
        readable = readable or len(space) > _EXTENDED
        if _control(space) & _REDIRECT:
            bridges.append(bridge.name)
    return tuple(bridges) if readable else None


def numa_node(bus: str, root: Path = Path("/")) -> int | None:
    """Return a device's NUMA node; None when the host has only one, or does not report it."""
    try:
        node = int((root / "sys/bus/pci/devices" / _sysfs(bus) / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def _control(space: bytes) -> int:
    return next((_word(space, at + 6) for kind, at in _capabilities(space) if kind == _ACS), 0)


def _capabilities(space: bytes) -> Iterator[tuple[int, int]]:
    """Yield the id and offset of each extended capability: 16 bits of id, 4 of version, 12 of the next offset."""
    at, visited = _EXTENDED, set()
    while _EXTENDED <= at <= len(space) - 8 and at not in visited:
        visited.add(at)
        header = int.from_bytes(space[at : at + 4], "little")
        yield header & 0xFFFF, at
        at = header >> 20


def _word(space: bytes, at: int) -> int:
    return int.from_bytes(space[at : at + 2], "little")


def _sysfs(bus: str) -> str:
    """NVML writes 00000000:41:00.0, sysfs 0000:41:00.0."""
    domain, _, rest = bus.lower().partition(":")
    return f"{int(domain or '0', 16):04x}:{rest}"
