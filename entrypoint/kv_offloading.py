"""What a plan asks of vLLM's own KV offloading: host memory, and tiers behind it (vLLM 0.32.0, v1/kv_offload/)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .parallel import parallel_of
from .plan import Setting, Value, plain

SIZE, BACKEND = "kv-offloading-size", "kv-offloading-backend"
TIERING = "TieringOffloadingSpec"
"""The `spec_name` with which vLLM has tiers behind host memory; without it `secondary_tiers` are ignored."""
FILES = "fs"
"""The type of tier that keeps files in a folder."""
PACKAGES = {"obj": "nixl", "p2p": "nixl", "kvcr": "kvcr"}
"""Modules that a type of tier imports and vLLM does not bring."""
TYPES = frozenset({FILES, "example", *PACKAGES})
"""What v1/kv_offload/tiering/factory.py registers."""
SPECS = frozenset({TIERING, "CPUOffloadingSpec"})
"""What v1/kv_offload/factory.py registers."""
_CONFIG = "kv-transfer-config"
EXTRA = f"{_CONFIG}.kv_connector_extra_config"
CONNECTOR, ROLE = f"{_CONFIG}.kv_connector", f"{_CONFIG}.kv_role"
BYTES = "cpu_bytes_to_use"
"""The key of `kv_connector_extra_config` that vLLM makes of --kv-offloading-size."""
MOST_GIB = 100_000
"""More memory than any host has."""
_MOST_RANKS = 1024
"""More ranks than any host has."""
_GIB = 1 << 30
SHM = "/dev/shm/"  # noqa: S108
_REGION = f"{SHM}vllm_offload_{{}}.mmap"
SHM_GIB = 16
"""Shared memory of the shipped containers, without offloading."""


@dataclass(frozen=True)
class Offloading:
    """Host memory for copies of KV caches, and the tiers that hold what it has no room for."""

    gib: float = 0.0
    """Of each data parallel replica, for all its ranks together; 0 where vLLM's own connector is not used."""
    connector: bool = False
    """Whether vLLM's own connector is asked for, with or without a size."""
    tiering: bool = False
    """Whether `spec_name` has tiers."""
    tiers: tuple[Mapping[str, Any], ...] = ()
    """`secondary_tiers`, as they are written; without `spec_name` vLLM ignores them, and there are none."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """`kv_connector_extra_config`."""

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of its file tiers."""
        named = (tier.get("root_dir") for tier in self.tiers if tier.get("type") == FILES)
        return tuple(folder for folder in named if folder and isinstance(folder, str))

    @property
    def packages(self) -> tuple[str, ...]:
        """The modules that its tiers import and vLLM does not bring."""
        kinds = {str(tier.get("type")) for tier in self.tiers}
        return tuple(sorted({PACKAGES[kind] for kind in kinds if kind in PACKAGES}))


def offloading_of(flags: Mapping[str, Setting]) -> Offloading:
    """Return what a plan's flags ask for; nothing where another connector keeps the copies."""
    values = plain(flags)
    size = _number(values.get(SIZE))
    native = bool(size) and values.get(BACKEND, "native") == "native"
    if not native and (size or values.get(CONNECTOR) != "OffloadingConnector"):
        return Offloading()
    extra = _extra(values)
    tiering = extra.get("spec_name") == TIERING
    tiers = extra.get("secondary_tiers") if tiering else None
    return Offloading(
        gib=_possible(size) if native else _possible(whole(extra.get(BYTES)) or 0, _GIB),
        connector=True,
        tiering=tiering,
        tiers=tuple(tier for tier in tiers if isinstance(tier, dict)) if isinstance(tiers, list) else (),
        extra=extra,
    )


def regions_of(flags: Mapping[str, Setting]) -> tuple[str, ...]:
    """
    Return the files in /dev/shm that a plan's `engine_id` names; none without it, as vLLM then makes up an own one.

    An empty one is a name too; data parallel ranks add their number (config/kv_transfer.py, v1/engine/core.py, 0.32.0).
    """
    values, shape = plain(flags), parallel_of(flags)
    name = values.get(f"{_CONFIG}.engine_id")
    if not (offloading_of(flags).connector and isinstance(name, str)):
        return ()
    if shape.data == 1:
        return (_REGION.format(name),)
    given = (whole(values.get(f"data-parallel-{name}")) for name in ("rank", "start-rank"))
    inferred = shape.node_rank * shape.node_gpus // shape.replica_gpus
    first = next((rank for rank in given if rank is not None), inferred)
    ranks = range(first, first + min(shape.node_replicas, _MOST_RANKS))
    return tuple(_REGION.format(f"{name}_dp{rank}") for rank in ranks)


def _extra(values: Mapping[str, Value]) -> dict[str, Any]:
    """Return the connector's own settings: they are one table, or a flag for each key."""
    table, prefix = values.get(EXTRA), f"{EXTRA}."
    keys = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    return {**(table if isinstance(table, dict) else {}), **keys}


def _number(value: Value) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def _possible(number: float, unit: int = 1) -> float:
    """Return a size in units; 0 where it is none, or no host has as much."""
    return number / unit if 0 < number <= MOST_GIB * unit else 0.0


def whole(value: Value) -> int | None:
    """Return a number as vLLM's int() reads it, from text too; None where it cannot."""
    try:
        return int(value) if isinstance(value, (int, float, str)) else None
    except (ValueError, OverflowError):
        return None
