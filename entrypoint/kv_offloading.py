"""What a plan asks of vLLM's own KV offloading: host memory, and tiers behind it (vLLM 0.32.0, v1/kv_offload/)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
_CONFIG = "kv-transfer-config"
_EXTRA = f"{_CONFIG}.kv_connector_extra_config"
_GIB = 1 << 30
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
        return tuple(str(tier["root_dir"]) for tier in self.tiers if tier.get("type") == FILES and tier.get("root_dir"))

    @property
    def packages(self) -> tuple[str, ...]:
        """The modules that its tiers import and vLLM does not bring."""
        return tuple(sorted({PACKAGES[str(tier.get("type"))] for tier in self.tiers if tier.get("type") in PACKAGES}))


def offloading_of(flags: Mapping[str, Setting]) -> Offloading:
    """Return what a plan's flags ask for; nothing where another connector keeps the copies."""
    values = plain(flags)
    size = _number(values.get(SIZE))
    native = bool(size) and values.get(BACKEND, "native") == "native"
    if not native and (size or values.get(f"{_CONFIG}.kv_connector") != "OffloadingConnector"):
        return Offloading()
    extra = _extra(values)
    tiering = extra.get("spec_name") == TIERING
    tiers = extra.get("secondary_tiers") if tiering else None
    return Offloading(
        gib=size if native else _number(extra.get("cpu_bytes_to_use")) / _GIB,
        connector=True,
        tiering=tiering,
        tiers=tuple(tier for tier in tiers if isinstance(tier, dict)) if isinstance(tiers, list) else (),
        extra=extra,
    )


def _extra(values: Mapping[str, Value]) -> dict[str, Any]:
    """Return the connector's own settings: they are one table, or a flag for each key."""
    whole, prefix = values.get(_EXTRA), f"{_EXTRA}."
    keys = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    return {**(whole if isinstance(whole, dict) else {}), **keys}


def _number(value: Value) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
