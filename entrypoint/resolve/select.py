"""Select the profile, the hardware, the tensor parallel size and the model: the profile files a plan is made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from ..catalog.catalog import Catalog, ProfileFile
from ..catalog.schema import Base, Hardware, Model, Profile, Root
from ..checkpoint.identity import Drafter, Identity
from ..errors import ConfigError
from ..machine.gpus import HostGpus
from ..parallel import DATA_PARALLEL_SIZE, PIPELINE_PARALLEL_SIZE
from ..plan import TENSOR_PARALLEL_SIZE, Setting
from ..request import Request
from . import shape
from .select_model import SelectedModel, default_model, requested_model, written_drafter
from .wording import NOT_READ, described


@dataclass(frozen=True)
class Selection:
    """
    The profile files of one plan, and the reason for each.

    `where` is what vLLM loads when it is not the model's repository, and `fault` why it could not load that. `identity`
    is what its files say, where they could be read: `drafter` and `weights_gib` are then theirs, and otherwise the
    profile file's. `gpus` counts the GPUs that this process sees (None: not read), and `gpu_order` are the variables
    that put the closest ones first.
    """

    root: ProfileFile[Root]
    profile: ProfileFile[Profile]
    hardware: ProfileFile[Hardware]
    model: ProfileFile[Model]
    nccl: ProfileFile[Base] | None
    tensor_parallel_size: int
    reasons: dict[str, Setting]
    drafter: Drafter
    where: Setting | None = None
    fault: str = ""
    identity: Identity | None = None
    weights_gib: float | None = None
    gpus: int | None = None
    gpu_order: Mapping[str, Setting] = field(default_factory=dict)
    shape: Mapping[str, Setting] = field(default_factory=dict)
    """What a request that sets other sizes means by leaving the tensor parallel size out."""
    catalog: Catalog | None = field(default=None, compare=False, repr=False)
    """Where the profile files come from, to name others."""

    def names(self) -> dict[str, Any]:
        """Return what the conditions of `[[when]]` and `[[refuse]]` are compared with, by their keys."""
        return {
            "profile": self.profile.name,
            "model": self.model.name,
            "hardware": self.hardware.name,
            TENSOR_PARALLEL_SIZE: self.tensor_parallel_size,
        }


def select(catalog: Catalog, request: Request, find: Callable[[], HostGpus]) -> Selection:
    """Return the selection for a request; `find` reads this host's GPUs, and is called only when none are named."""
    root = catalog.root()
    named = requested_model(catalog, request)
    requested = request.choices.get("profile") or _default_profile(catalog, named, root)
    profile = catalog.profile(requested.value, requested.origin)
    gpus = _gpus(catalog, profile, request, find)
    hardware = gpus.profile_file or catalog.hardware(gpus.hardware, gpus.origin)
    if "profile" not in request.choices and (usual := _of_hardware(catalog, named, hardware)):
        requested = usual
        profile = catalog.profile(requested.value, requested.origin)
    size = shape.tensor_parallel_size(root, hardware, profile, request)
    alone = shape.alone(request)
    selected = named or default_model(catalog, request, profile, hardware, size)
    model = selected.model
    for link in model.chain():
        if TENSOR_PARALLEL_SIZE in link.own.flags or any(TENSOR_PARALLEL_SIZE in when.flags for when in link.own.when):
            raise ConfigError(
                f"{link.file}: a model cannot set {TENSOR_PARALLEL_SIZE}, which is chosen first; set it in a profile."
            )
    reasons = {
        "profile": Setting(profile.name, requested.origin),
        "hardware": Setting(hardware.name, gpus.origin),
        "model-name": Setting(model.name, selected.why),
    }
    if selected.identity:
        reasons["checkpoint"] = Setting(described(selected.identity), selected.read)
    elif selected.note:
        reasons["checkpoint"] = Setting(NOT_READ, selected.note)
    by_topology, gpu_order = _by_topology(gpus, size, _gpus_together(profile, request, size), request.operator)
    by_profile = Setting(profile.get("nccl"), f"{profile.file_of('nccl')}: nccl") if profile.get("nccl") else None
    nccl = request.choices.get("nccl") or by_profile or by_topology
    if nccl is None and hardware.get("nccl"):
        nccl = Setting(hardware.get("nccl"), f"{hardware.file_of('nccl')}: nccl")
    if nccl and "nccl" not in request.choices:
        nccl = _between_nodes(nccl, request)
    if nccl:
        reasons["nccl"] = nccl
    return Selection(
        root,
        profile,
        hardware,
        model,
        fault=selected.fault,
        nccl=catalog.nccl(nccl.value, nccl.origin) if nccl and nccl.value != "none" else None,
        tensor_parallel_size=size,
        reasons=reasons,
        drafter=_drafter(model, selected.identity),
        where=selected.where,
        identity=selected.identity,
        weights_gib=_weights_gib(model, selected.identity),
        gpus=gpus.count,
        gpu_order=gpu_order,
        shape=alone,
        catalog=catalog,
    )


def _default_profile(catalog: Catalog, named: SelectedModel | None, root: ProfileFile[Root]) -> Setting:
    """Return the default profile, or for a model that it does not serve the first one that does."""
    usual = Setting(root.own.default_profile, f"{root.file}: default-profile")
    models = catalog.profile(usual.value, usual.origin).get("models")
    if named is None or not models or named.model.is_one_of(models):
        return usual
    for name in catalog.names("profile"):
        if named.model.is_one_of(catalog.profile(name, usual.origin).get("models")):
            return Setting(
                name, f"the first profile for {named.model.name}; that of {usual.origin} is for other models"
            )
    return usual


def _of_hardware(catalog: Catalog, named: SelectedModel | None, hardware: ProfileFile[Hardware]) -> Setting | None:
    """Return the hardware's own default profile, if it has one that serves the requested model."""
    if not (name := hardware.get("default_profile")):
        return None
    usual = Setting(name, f"{hardware.file_of('default_profile')}: default-profile")
    models = catalog.profile(usual.value, usual.origin).get("models")
    return usual if named is None or not models or named.model.is_one_of(models) else None


def _drafter(model: ProfileFile[Model], identity: Identity | None) -> Drafter:
    """Return the drafter that the files hold, or that the model's profile file describes."""
    written = written_drafter(model)
    if identity is None:
        return written
    found = identity.drafter
    if found.bytes or found.kind != written.kind:
        return found
    return dataclasses.replace(found, bytes=written.bytes, scheme=found.scheme or written.scheme)


def _weights_gib(model: ProfileFile[Model], identity: Identity | None) -> float | None:
    """Return the size of all weights: the files', or where they are not at hand the profile file's."""
    written: float | None = model.get("weights_gib")
    return identity.loaded_bytes / (1 << 30) if identity and identity.bytes else written


def _by_topology(
    gpus: HostGpus, size: int, together: int, operator: Mapping[str, str]
) -> tuple[Setting | None, dict[str, Setting]]:
    """
    Return the NCCL set that suits how this host's GPUs are connected, and the variables that put close ones together.

    `size` GPUs share a layer; `together` GPUs of this host speak through NCCL. Every visible GPU that can serve stays
    visible; an order that the operator gave (CUDA_VISIBLE_DEVICES) stays as it is.
    """
    topology = gpus.topology
    if topology is None or not topology.gpus:
        return None, {}
    from ..machine.topology import choose_set, groups

    order = topology.gpus
    if "CUDA_VISIBLE_DEVICES" not in operator:
        grouped = [gpu for group in groups(topology, size) for gpu in group]
        order = (*grouped, *(gpu for gpu in topology.gpus if gpu not in grouped))
    name, reason = choose_set(topology, order[:together])
    settings = {}
    if order != topology.gpus or gpus.only:
        closest = f"topology: the closest GPUs are {', '.join(map(str, order[:size]))}"
        why = closest if order != topology.gpus else gpus.origin
        settings = {
            "CUDA_DEVICE_ORDER": Setting("PCI_BUS_ID", why),
            "CUDA_VISIBLE_DEVICES": Setting(",".join(map(str, order)), why),
        }
    return Setting(name, f"topology: {reason}"), settings


def _between_nodes(nccl: Setting, request: Request) -> Setting:
    """Return the set that leaves the network on, in place of p2p-off, where a server spans hosts."""
    nodes = request.flag("nnodes")
    if nccl.value != "p2p-off" or nodes is None or nodes.value == 1:
        return nccl
    return Setting("p2p-off-nodes", f"{nccl.origin}; {nodes.origin} is {nodes.value}, so the network stays on")


def _gpus_together(profile: ProfileFile[Profile], request: Request, size: int) -> int:
    """Return how many GPUs speak through NCCL: of all stages, and of data parallel replicas that share experts."""
    flags = profile.flags()
    setting = {name: request.flag(name) for name in (DATA_PARALLEL_SIZE, PIPELINE_PARALLEL_SIZE)}
    sizes = [found.value if (found := setting[name]) else flags.get(name) for name in setting]
    return size * prod(one for one in sizes if isinstance(one, int) and one > 0)


def _gpus(catalog: Catalog, profile: ProfileFile[Profile], request: Request, find: Callable[[], HostGpus]) -> HostGpus:
    if named := request.choices.get("hardware"):
        return HostGpus(named.value, named.origin)
    only = profile.get("hardware")
    if len(only) == 1 and only[0] in catalog.names("hardware"):  # not an architecture
        return HostGpus(only[0], f"{profile.file}: the only hardware for profile {profile.name}")
    return find()
