"""How the GPUs of this host are connected: which ones make the closest group, and which NCCL settings suit it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

from . import pci
from .nvml import ANCESTORS, Driver, Pair

_NEAR = list(ANCESTORS.values())


@dataclass(frozen=True)
class Topology:
    """`gpus` are NVML's indexes of the visible GPUs, in CUDA's order; `pairs` has every pair of them."""

    gpus: tuple[int, ...] = ()
    pairs: tuple[Pair, ...] = ()
    iommu: pci.Iommu = "unknown"
    redirecting: tuple[str, ...] | None = None
    """Bridges above the GPUs that redirect peer traffic (ACS); None when not readable (it takes root)."""
    nodes: tuple[int | None, ...] = ()
    """NUMA node of each of `gpus`."""

    def pair(self, a: int, b: int) -> Pair:
        """Return the pair of two GPUs, given by index in any order."""
        return self._by_gpus[frozenset((a, b))]

    @cached_property
    def _by_gpus(self) -> dict[frozenset[int], Pair]:
        return {frozenset((pair.a, pair.b)): pair for pair in self.pairs}

    def only(self, gpus: tuple[int, ...]) -> Topology:
        """Return the topology of some of these GPUs, in their order; IOMMU and bridges stay those of all."""
        gpus = tuple(gpu for gpu in gpus if gpu in self.gpus)
        nodes = dict(zip(self.gpus, self.nodes, strict=False))
        pairs = tuple(pair for pair in self.pairs if pair.a in gpus and pair.b in gpus)
        return replace(self, gpus=gpus, pairs=pairs, nodes=tuple(nodes.get(gpu) for gpu in gpus))

    def within(self, group: tuple[int, ...]) -> list[Pair]:
        """Return every pair of a group."""
        return [self.pair(a, b) for a, b in combinations(group, 2)]

    def nvlinked(self, group: tuple[int, ...]) -> bool:
        """Tell whether NVLink connects every pair: what vLLM calls fully connected."""
        return len(group) > 1 and all(pair.nvlink for pair in self.within(group))


def read_topology(driver: Driver, visible: tuple[int, ...], root: Path = Path("/")) -> Topology:
    """Join what NVML and sysfs (under `root`) report about the visible GPUs; no process is started."""
    gpus = tuple(index for index in visible if not driver.gpu(index).error)
    buses = [driver.gpu(index).bus for index in gpus]
    above = [pci.redirecting(bus, root) for bus in buses]
    known = [names for names in above if names is not None]
    return Topology(
        gpus,
        tuple(pair for pair in driver.pairs if pair.a in gpus and pair.b in gpus),
        pci.iommu(buses, root),
        tuple(sorted({name for names in known for name in names})) if known else None,
        tuple(pci.numa_node(bus, root) for bus in buses),
    )


def distance(topology: Topology, group: tuple[int, ...]) -> tuple[int, int]:
    """Return the worst step between two GPUs of a group, and the sum of all: NVLink 0, same board 1, … SYS 6."""
    steps = [0 if pair.nvlink else 1 + _NEAR.index(pair.ancestor) for pair in topology.within(group)]
    return max(steps, default=0), sum(steps)


def closest(topology: Topology, size: int) -> tuple[int, ...]:
    """Return the `size` GPUs that are closest to each other, the first such ones; empty when there are fewer."""
    groups = combinations(topology.gpus, size)
    return min(groups, key=lambda group: distance(topology, group), default=())


def groups(topology: Topology, size: int) -> list[tuple[int, ...]]:
    """
    Return disjoint groups of `size` GPUs, closest first; GPUs that fill no group are not used.

    Picking the closest group first is optimal here, as common ancestors form a tree.
    """
    closest_first, remaining = [], topology
    while group := closest(remaining, size):
        closest_first.append(group)
        remaining = remaining.only(tuple(gpu for gpu in remaining.gpus if gpu not in group))
    return closest_first


def choose_set(topology: Topology, group: tuple[int, ...]) -> tuple[str, str]:
    """Return the name of the NCCL set for a group and the reason."""
    if len(group) < 2:
        return "none", "one GPU of this host needs no settings of NCCL"
    names = " and ".join(map(str, group)) if len(group) == 2 else f"{group[0]} to {group[-1]}"
    if topology.nvlinked(group):
        return "none", f"NVLink connects GPUs {names}, and NCCL's defaults suit it"
    if any(pair.nvlink for pair in topology.within(group)):
        return "nvlink-only", f"NVLink connects some of GPUs {names}, and peer access over PCIe is unproven"
    farthest = max(topology.within(group), key=lambda pair: _NEAR.index(pair.ancestor)).ancestor
    at = f"GPUs {names} have no NVLink ({farthest})"
    if obstacle := obstacle_to_peers(topology, group):
        return "p2p-off", f"{at}, and {obstacle}"
    return "p2p-off", f"{at}, and peer access is unproven"


def obstacle_to_peers(topology: Topology, group: tuple[int, ...]) -> str:
    """Return what prevents peer access over PCIe, as far as it can be read; empty when nothing does."""
    refused = [pair for pair in topology.within(group) if "unknown" not in (pair.read, pair.write)]
    refused = [pair for pair in refused if not pair.peer_access]
    if refused:
        return f"the driver does not allow peer access between GPUs {refused[0].a} and {refused[0].b}"
    if topology.iommu == "translated":
        return "the IOMMU translates addresses"
    if topology.redirecting:
        return f"ACS redirects peer traffic at {', '.join(topology.redirecting)}"
    return ""
