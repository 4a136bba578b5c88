"""Everything that fits some GPUs: each profile with each model and size, and what was measured of it. Pure."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..catalog import community
from ..catalog.catalog import Catalog, ProfileFile
from ..catalog.schema import Hardware, Measured, Model, Profile
from ..errors import ConfigError, problems_of
from ..machine.gpus import HostGpus
from ..memory import advice
from ..parallel import parallel_of
from ..plan import Setting
from ..request import Request
from . import auto, memory_inputs
from .candidates import SIZES, Candidate, of_all_nodes, of_profile
from .layers import resolve
from .select import select
from .select_model import requested_model


@dataclass(frozen=True)
class FittingProfile:
    """
    One profile with one model over some GPUs, and how many of its requests run at full length at once.

    Both are of one of `replicas` data parallel replicas.
    """

    profile: str
    model: str
    context: int
    requests: int
    held: int
    gpus: int
    replicas: int
    disk_gib: float
    measured: tuple[Measured, ...] = ()
    community: tuple[community.Given, ...] = ()
    """Results that other people gave."""


@dataclass(frozen=True)
class Choice:
    """What is served for a name of a profile, or why nothing is."""

    profile: str = ""
    model: str = ""
    gpus: int = 0
    why_not: str = ""
    short: str = ""
    """That it holds fewer requests than it promises, or may not start."""


@dataclass(frozen=True)
class WhatFits:
    """
    What fits `gpus` GPUs of all nodes, longest contexts first.

    `missing` are profile, model and size of those that do not fit.

    `choices` has the default (an empty name) and every name of `auto`.
    """

    hardware: ProfileFile[Hardware]
    gpus: int
    origin: str
    fits: tuple[FittingProfile, ...]
    missing: tuple[tuple[str, str, int], ...]
    choices: dict[str, Choice]
    enough: int = 0
    """Where nothing fits, how many of these GPUs on each node would do; 0 where 8 do not."""

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "hardware": self.hardware.name,
            "gpus": self.gpus,
            "origin": self.origin,
            "memory-gib": self.hardware.get("memory_gib"),
            "choices": {name or "default": _json(choice) for name, choice in self.choices.items()},
            "fits": [_json(fit) for fit in self.fits],
            "does-not-fit": [dict(zip(("profile", "model", "gpus"), one, strict=True)) for one in self.missing],
        }


def what_fits(catalog: Catalog, request: Request, gpus: HostGpus) -> WhatFits:
    """Return what fits; raise ConfigError for unknown hardware. `gpus.count` must be known."""
    count = of_all_nodes(request, gpus)
    assert gpus.count
    assert count
    hardware = gpus.profile_file or catalog.hardware(gpus.hardware, gpus.origin)
    fits, missing = _split(catalog, request, hardware, gpus)
    enough = 0 if fits else _enough(catalog, request, hardware, gpus)
    fits.sort(key=lambda fit: (-fit.context, fit.profile, -fit.requests))
    choices = {"": _choice(catalog, request, gpus), **_of_auto(catalog, request, gpus)}
    return WhatFits(hardware, count, gpus.origin, tuple(fits), tuple(missing), choices, enough)


def _split(
    catalog: Catalog, request: Request, hardware: ProfileFile[Hardware], gpus: HostGpus
) -> tuple[list[FittingProfile], list[tuple[str, str, int]]]:
    """Return what fits, and profile, model and size of what does not."""
    fits, missing = [], []
    for profile, model in _combinations(catalog, request, hardware):
        found = list(_candidates(catalog, request, profile, model, gpus))
        starting = [_fitting(catalog, model, one) for one in found if one.held]
        fits += starting
        if not starting:
            missing.append((profile.name, model.name, max(one.size for one in found)))
    return fits, missing


def _combinations(
    catalog: Catalog, request: Request, hardware: ProfileFile[Hardware]
) -> Iterator[tuple[ProfileFile[Profile], ProfileFile[Model]]]:
    """Yield each profile for this hardware with each model that it is for; only with the requested model, if any."""
    requested = requested_model(catalog, request)
    named = requested.model if requested else None
    for name in catalog.names("profile"):
        profile = catalog.profile(name, "")
        kinds, models = profile.get("hardware"), profile.get("models")
        if kinds and not hardware.is_one_of(kinds):
            continue
        for model in [named] if named else catalog.every_model():
            if model.is_one_of(models) if models else model.get("weights_gib"):
                yield profile, model


def _candidates(
    catalog: Catalog, request: Request, profile: ProfileFile[Profile], model: ProfileFile[Model], gpus: HostGpus
) -> Iterator[Candidate]:
    choices = {"model": Setting(model.name, "profiles"), **request.choices}
    one = dataclasses.replace(request, choices=choices)
    return of_profile(catalog, one, profile.name, gpus, "profiles")


def _fitting(catalog: Catalog, model: ProfileFile[Model], found: Candidate) -> FittingProfile:
    assert found.selection
    identity = found.selection.identity
    on_disk = identity.bytes / (1 << 30) if identity and identity.bytes else 0
    return FittingProfile(
        profile=found.profile,
        model=model.name,
        context=found.context,
        requests=found.requests,
        held=found.held,
        gpus=found.gpus,
        replicas=found.replicas,
        disk_gib=on_disk or model.own.files_gib or model.get("weights_gib") or 0,
        measured=tuple(_measured(catalog, found, model)),
        community=tuple(_given(found, model)),
    )


def _measured(catalog: Catalog, found: Candidate, model: ProfileFile[Model]) -> Iterator[Measured]:
    """Yield the figures of this model over as many GPUs of this kind, or of one that extends it or that it extends."""
    assert found.selection
    hardware = found.selection.hardware
    for one in catalog.profile(found.profile, "").own.measured:
        if one.model != model.name or one.gpus != found.gpus or one.kind not in catalog.names("hardware"):
            continue
        kind = catalog.hardware(one.kind, "")
        if hardware.is_one_of([kind.name]) or kind.is_one_of([hardware.name]):
            yield one


def _given(found: Candidate, model: ProfileFile[Model]) -> list[community.Given]:
    """Return what others gave of this model over as many GPUs of exactly this kind."""
    assert found.selection
    hardware = found.selection.hardware.name
    return community.of(community.read(), profile=found.profile, model=model.name, gpus=found.gpus, hardware=hardware)


def _enough(catalog: Catalog, request: Request, hardware: ProfileFile[Hardware], gpus: HostGpus) -> int:
    """Return the smallest larger number of GPUs on which anything starts, split over all of them; 0 for none."""
    for count in reversed(SIZES):
        more = dataclasses.replace(gpus, count=count)
        if count > (gpus.count or 0) and any(
            next(_candidates(catalog, request, profile, model, more)).held
            for profile, model in _combinations(catalog, request, hardware)
        ):
            return count
    return 0


def _of_auto(catalog: Catalog, request: Request, gpus: HostGpus) -> dict[str, Choice]:
    """Return what each name of `auto` selects; the candidates are the same for all of them."""
    found = auto.candidates(catalog, request, gpus)
    would_do = functools.cache(lambda: auto.enough(catalog, request, gpus))
    choices = {}
    for name in auto.NAMES:
        try:
            ordered = auto.ranked(catalog, found, name, of_all_nodes(request, gpus))
            settled = auto.chosen(ordered, Setting(name, name), gpus.hardware, would_do)
        except ConfigError as error:
            choices[name] = Choice(why_not=problems_of(error)[0])
        else:
            choices[name] = _choice(catalog, settled, gpus)
    return choices


def _choice(catalog: Catalog, request: Request, gpus: HostGpus) -> Choice:
    """Return what is served for a request, and what it holds less than it promises."""
    try:
        selection = dataclasses.replace(select(catalog, request, lambda: gpus), gpus=gpus.count)
        plan = resolve(selection, request)
    except ConfigError as error:
        return Choice(why_not=problems_of(error)[0])
    memory = memory_inputs.estimate(selection, plan.flags)
    return Choice(
        selection.profile.name,
        selection.model.name,
        parallel_of(plan.flags).gpus,
        short=advice.shortage(memory) if memory else "",
    )


def _json(one: Any) -> dict[str, Any]:
    values = {field.name.replace("_", "-"): getattr(one, field.name) for field in dataclasses.fields(one)}
    if "measured" in values:
        values["measured"] = [figure.model_dump(by_alias=True) for figure in values["measured"]]
    return values
