"""Decide whether to try an all-reduce between the GPUs of a plan's first replica, and with which NCCL settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ...catalog.catalog import Catalog
from ...machine.requirements import HostRequirements
from ...machine.topology import Topology, obstacle_to_peers
from ...plan import Plan
from ..options import DoctorOptions
from .result import AllReduceResult
from .try_nccl_sets import prove

log = logging.getLogger(__name__)
_PEERS = "p2p-on"


def try_all_reduce(
    plan: Plan, topology: Topology, required: HostRequirements, options: DoctorOptions
) -> AllReduceResult | str:
    """Return the result with the last NCCL settings that were tried, or the reason why none were."""
    group = topology.gpus[: required.group]
    linked = topology.nvlinked(group)
    if options.collective is False or (options.collective is None and linked):
        return "NVLink connects the GPUs" if linked else "not requested"
    connected = "NVLink" if linked else "no NVLink"
    gpus = ", ".join(map(str, group))
    log.info(f"trying an all-reduce between GPUs {gpus}, 20 s at most: {connected} between them")
    proof = prove(_settings_to_try(plan, topology, group, required, options), required.group)
    for name, result in proof.tried:
        log.info(f"all-reduce with {name}: {result}")
    if proof.chosen == _PEERS:
        log.info("peer access works; use it with --nccl p2p-on (DSV4_NCCL=p2p-on)")
    return proof.tried[-1][1]


def _settings_to_try(
    plan: Plan, topology: Topology, group: tuple[int, ...], required: HostRequirements, options: DoctorOptions
) -> list[tuple[str, Mapping[str, str]]]:
    """Return the environments to try, best first; the plan's own is the last."""
    own = plan.choices.get("nccl")
    settings: list[tuple[str, Mapping[str, str]]] = [
        (f"the plan's settings ({own.value})" if own else "the plan's settings", dict(required.env))
    ]
    unproven = own is not None and own.value == "p2p-off" and own.origin.startswith("topology")
    if options.compare and unproven and not obstacle_to_peers(topology, group):
        plain = {name: value for name, value in required.env.items() if not name.startswith("NCCL_")}
        peers = Catalog([]).nccl(_PEERS, "").own.env
        settings.insert(0, (_PEERS, {**plain, **{name: str(value) for name, value in peers.items()}}))
    return settings
