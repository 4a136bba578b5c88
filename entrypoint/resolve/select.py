"""Select the profile, the hardware, the tensor parallel size and the model: the profile files a plan is made from."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.catalog import Base, Catalog, Hardware, Model, Profile, ProfileFile, Root
from ..checkpoint import identify
from ..errors import ConfigError, nearest
from ..plan import Setting
from ..request import Request
from ..vllm_schema import schema

if TYPE_CHECKING:
    from ..machine.topology import Topology

_TP = "tensor-parallel-size"


@dataclass(frozen=True)
class Found:
    """The GPUs of this host: which hardware they are, how many, how connected (None when chosen by name)."""

    hardware: str
    origin: str
    gpus: int | None = None
    topology: Topology | None = None
    entry: ProfileFile[Hardware] | None = None
    """Stands in for the hardware of that name."""


@dataclass(frozen=True)
class Selection:
    """
    The profile files of one plan, and the reason for each.

    `gpu_order` are the variables that put the closest GPUs first. `where` is what vLLM is given to load when it is not
    the model's repository; `draft_head` and `weights_gib` are the checkpoint's, read where it is a folder.
    """

    root: ProfileFile[Root]
    profile: ProfileFile[Profile]
    hardware: ProfileFile[Hardware]
    model: ProfileFile[Model]
    nccl: ProfileFile[Base] | None
    tensor_parallel_size: int
    reasons: dict[str, Setting]
    draft_head: str
    where: Setting | None = None
    weights_gib: float | None = None
    gpus: int | None = None
    gpu_order: Mapping[str, Setting] = field(default_factory=dict)

    def names(self) -> dict[str, Any]:
        """Return what the conditions of `[[when]]` and `[[refuse]]` are compared with, by their keys."""
        return {
            "profile": self.profile.name,
            "model": self.model.name,
            "hardware": self.hardware.name,
            _TP: self.tensor_parallel_size,
        }


def select(catalog: Catalog, request: Request, find: Callable[[], Found]) -> Selection:
    """Return the selection for a request; `find` looks at this host's GPUs, and is called only when none are named."""
    root = catalog.root()
    asked = request.choices.get("profile") or Setting(root.own.default_profile, f"{root.file}: default-profile")
    profile = catalog.profile(asked.value, asked.origin)
    found = _hardware(profile, request, find)
    hardware = found.entry or catalog.hardware(found.hardware, found.origin)
    size = _tensor_parallel_size(root, hardware, profile, request)
    model, why, where = _model(catalog, request, profile, hardware, size)
    for link in model.chain():
        if _TP in link.own.flags or any(_TP in when.flags for when in link.own.when):
            raise ConfigError(f"{link.file}: {_TP} is chosen before the model; set it in a profile.")
    reasons = {
        "profile": Setting(profile.name, asked.origin),
        "hardware": Setting(hardware.name, found.origin),
        "model-name": Setting(model.name, why),
    }
    connected, order = _by_topology(found.topology, size, request.operator)
    named = request.choices.get("nccl") or connected
    if named is None and hardware.get("nccl"):
        named = Setting(hardware.get("nccl"), f"{hardware.file}: nccl")
    if named:
        reasons["nccl"] = named
    nccl = catalog.nccl(named.value, named.origin) if named and named.value != "none" else None
    folder = Path(where.value) if where and _is_folder(where.value, where.origin) else None
    weights = identify.weights_bytes(folder) / (1 << 30) if folder else model.get("weights_gib")
    draft = identify.draft_head(folder) if folder else model.get("draft_head")
    return Selection(root, profile, hardware, model, nccl, size, reasons, draft, where, weights, found.gpus, order)


def _by_topology(
    topology: Topology | None, size: int, operator: Mapping[str, str]
) -> tuple[Setting | None, dict[str, Setting]]:
    """
    Return the NCCL set that suits how this host's GPUs are connected, and the variables that put close ones together.

    Every visible GPU stays visible; an order that the operator gave (CUDA_VISIBLE_DEVICES) stays as it is.
    """
    if topology is None or not topology.gpus:
        return None, {}
    from ..machine.topology import choose_set, groups

    order = topology.gpus
    if "CUDA_VISIBLE_DEVICES" not in operator:
        grouped = [gpu for group in groups(topology, size) for gpu in group]
        order = (*grouped, *(gpu for gpu in topology.gpus if gpu not in grouped))
    name, reason = choose_set(topology, order[:size])
    settings = {}
    if order != topology.gpus:
        why = f"topology: GPUs {' and '.join(map(str, order[:size]))} are the closest"
        settings = {
            "CUDA_DEVICE_ORDER": Setting("PCI_BUS_ID", why),
            "CUDA_VISIBLE_DEVICES": Setting(",".join(map(str, order)), why),
        }
    return Setting(name, f"topology: {reason}"), settings


def _hardware(profile: ProfileFile[Profile], request: Request, find: Callable[[], Found]) -> Found:
    if asked := request.choices.get("hardware"):
        return Found(asked.value, asked.origin)
    only = profile.get("hardware")
    if len(only) == 1:
        return Found(only[0], f"{profile.file}: the only hardware of profile {profile.name}")
    return find()


def _tensor_parallel_size(
    root: ProfileFile[Root], hardware: ProfileFile[Hardware], profile: ProfileFile[Profile], request: Request
) -> int:
    """Settle the size before the model: a default model may depend on it, so no `when` block may set it."""
    links: list[ProfileFile[Any]] = [*root.chain(), *hardware.chain(), *profile.chain()]
    size = 1
    for link in links:
        if _TP in link.own.flags:
            size = schema.check_value(_TP, link.own.flags[_TP], f"{link.file} [flags]")
        if any(_TP in when.flags for when in link.own.when):
            raise ConfigError(f"{link.file}: {_TP} decides which [[when]] blocks apply; set it under [flags].")
    for layer in (request.environment, request.command_line):
        size = layer.flags[_TP].value if _TP in layer.flags else size
    return size


def _model(
    catalog: Catalog, request: Request, profile: ProfileFile[Profile], hardware: ProfileFile[Hardware], size: int
) -> tuple[ProfileFile[Model], str, Setting | None]:
    if asked := request.choices.get("model"):
        return _asked_model(catalog, asked)
    allowed = profile.get("models")
    if len(allowed) == 1:
        name, why = allowed[0], f"{profile.file}: the only model of profile {profile.name}"
        return catalog.model(name, why), why, None
    for entry in hardware.get("default_model"):
        fits = not entry.tensor_parallel_size or size in entry.tensor_parallel_size
        if (
            fits
            and (not entry.profiles or profile.is_one_of(entry.profiles))
            and (not allowed or entry.model in allowed)
        ):
            why = f"{hardware.file}: default-model: {entry.because}"
            return catalog.model(entry.model, f"{hardware.file}: default-model"), why, None
    raise ConfigError(
        f"No default model for profile {profile.name} on {hardware.name} at {_TP} {size};"
        f" name one with --model (MODEL): {', '.join(allowed or catalog.names('model'))}."
    )


def _asked_model(catalog: Catalog, asked: Setting) -> tuple[ProfileFile[Model], str, Setting | None]:
    """Take a model's name, its repository, a folder, or NAME=WHERE."""
    text, names = str(asked.value), catalog.names("model")
    name, given, where = text.partition("=")
    if given and name in names:
        if not where:
            raise ConfigError(f"{asked.origin}: {text!r} names no folder or repository after the equals sign.")
        return catalog.model(name, asked.origin), asked.origin, dataclasses.replace(asked, value=where)
    if text in names:
        return catalog.model(text, asked.origin), asked.origin, None
    if _is_folder(text, asked.origin):
        model = identify.model_in(Path(text), catalog.every_model(), asked.origin)
        return model, f"{asked.origin}: config.json in {text}", asked
    if named := catalog.model_of(text):
        return named, asked.origin, None
    models = list(catalog.every_model())
    for model in models:
        if any(fnmatch.fnmatchcase(text.lower(), glob.lower()) for glob in model.own.repositories):
            return model, asked.origin, asked
    hint = nearest(text, [*names, *(str(model.flags().get("model", "")) for model in models)])
    raise ConfigError(
        f"{asked.origin}: {text!r} is no model, no repository of one and no folder{hint}."
        f" Known: {', '.join(names)}; NAME=WHERE serves other weights as one of them."
    )


def _is_folder(text: str, origin: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError as error:  # a name too long, a folder around it that may not be entered
        raise ConfigError(f"{origin}: {text!r} cannot be looked at ({error.strerror}).") from None
