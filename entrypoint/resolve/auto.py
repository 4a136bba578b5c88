"""
`PROFILE=auto`: the profile that suits these GPUs and this model, by what is wanted of them. Pure.

| name | chooses, among the profiles that fit |
|---|---|
| `auto` | the longest context with as many requests as GPUs, two at least |
| `auto:context` | the longest context, then the most requests |
| `auto:throughput` | the most requests, then the longest context |

A profile fits when its plan resolves and every request that it promises runs at full length at once
(`MemoryEstimate.steady_state_requests`); where none does, the one that holds the largest part of its requests is taken.
Where the GPUs are counted, the model is split over as many as can share it, eight at most where eight hold as much.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from ..catalog.catalog import Catalog, ProfileFile
from ..catalog.schema import Profile
from ..errors import ConfigError, nearest
from ..kv_offloading import SIZE
from ..machine.gpus import HostGpus
from ..plan import TENSOR_PARALLEL_SIZE, Setting
from ..request import Request
from .candidates import SIZES, Candidate, of_all_nodes, of_profile, with_profile

AUTO = "auto"
CONTEXT, THROUGHPUT = f"{AUTO}:context", f"{AUTO}:throughput"
NAMES = (AUTO, CONTEXT, THROUGHPUT)
_OF_ONE_HOST = 8
"""A larger tensor parallel size is taken where no smaller one holds as much: its ranks meet over a network."""


def is_auto(profile: Setting) -> bool:
    """Tell whether a profile is to be selected, by a known goal or not."""
    return str(profile.value).partition(":")[0] == AUTO


def settle(catalog: Catalog, request: Request, find: Callable[[], HostGpus]) -> Request:
    """
    Return the request with the profile that `auto` selects, and the reason in its origin; any other profile is kept.

    Raise ConfigError if no profile fits. A profile that does not fit memory is a better reason than one that violates
    a constraint.
    """
    requested = request.choices.get("profile")
    if requested is None or not is_auto(requested):
        return request
    goal, origin = str(requested.value), requested.origin
    if goal not in NAMES:
        raise ConfigError(f"{origin}: there is no {goal!r}{nearest(goal, NAMES)}. Known: {', '.join(NAMES)}.")
    hardware = request.choices.get("hardware")
    gpus = HostGpus(hardware.value, hardware.origin) if hardware else find()
    ordered = ranked(catalog, candidates(catalog, request, gpus, origin), goal, of_all_nodes(request, gpus))
    return chosen(ordered, requested, gpus.hardware, lambda: enough(catalog, request, gpus))


def chosen(ordered: list[Candidate], requested: Setting, hardware: str, would_do: Callable[[], str]) -> Request:
    """Return the request of the best of some candidates for a goal; ConfigError ends with what would do."""
    goal, origin = str(requested.value), requested.origin
    one = best(ordered)
    reason = _reason(ordered, one)
    if one is None:
        raise ConfigError(f"{origin}: no profile fits {hardware}{reason or '; none is written for it'}.{would_do()}")
    profile = Setting(one.profile, f"{origin} {goal}: {_fits(one)}{reason}")
    return with_profile(one.request, profile)


def enough(catalog: Catalog, request: Request, gpus: HostGpus) -> str:
    """Say how many of these GPUs would do, where that can be counted."""
    count = of_all_nodes(request, gpus) or 0
    for size in sorted(SIZES) if count else ():
        more = dataclasses.replace(gpus, count=size, topology=None)
        if size > count and any(one.held for one in _each(catalog, request, more, "")):
            return f" {size} x {gpus.hardware} would do; those of other hosts count with --nnodes."
    return ""


def candidates(catalog: Catalog, request: Request, gpus: HostGpus, origin: str = "") -> list[Candidate]:
    """
    Return a candidate for every profile and size, those that fit or not.

    Profiles for other hardware are left out, and without a requested model those for other models than the default's.
    """
    return list(_each(catalog, request, gpus, origin))


def _each(catalog: Catalog, request: Request, gpus: HostGpus, origin: str) -> Iterator[Candidate]:
    named = "model" in request.choices
    names = [name for name in catalog.names("profile") if not _is_for_other_hardware(catalog, name, gpus)]
    usual = [name for name in names if named or _is_usual(catalog, catalog.profile(name, ""))]
    return (one for name in usual for one in of_profile(catalog, request, name, gpus, origin))


def ranked(catalog: Catalog, candidates: list[Candidate], goal: str, gpus: int | None) -> list[Candidate]:
    """
    Return the candidates, the one that `auto` prefers first; where GPUs are not counted, a size that is set last.

    A profile that keeps KV caches in host memory is left out: whether the host has as much is not known here.
    """
    own = {name: catalog.profile(name, "").flags() for name in {one.profile for one in candidates}}

    def order(one: Candidate) -> tuple[float, ...]:
        any_number = gpus is not None or TENSOR_PARALLEL_SIZE not in own[one.profile]
        return (any_number, *rank(one, goal, gpus))

    return sorted((one for one in candidates if SIZE not in own[one.profile]), key=order, reverse=True)


def best(ordered: list[Candidate]) -> Candidate | None:
    """Return the first that fits, else what starts and holds the largest part of its requests; None for neither."""
    starts = [one for one in ordered if one.held]
    fullest = max(starts, key=lambda one: one.held / one.requests, default=None)
    return next((one for one in ordered if one.fits), fullest)


def rank(candidate: Candidate, goal: str, gpus: int | None) -> tuple[float, ...]:
    """Return what is compared: more is better."""
    context, requests = candidate.context, candidate.requests * candidate.replicas
    size = candidate.size if candidate.size <= _OF_ONE_HOST else 0
    by_context, by_requests = (context, requests, size), (requests, context, size)
    if goal == CONTEXT:
        return by_context
    if goal == THROUGHPUT:
        return by_requests
    enough = requests >= max(2, gpus or candidate.size)
    return (enough, *(by_context if enough else by_requests))


def _is_usual(catalog: Catalog, profile: ProfileFile[Profile]) -> bool:
    """Return whether a profile serves a model that the default profile serves."""
    usual, own = catalog.profile(catalog.root().own.default_profile, "").get("models"), profile.get("models")
    return not own or not usual or not set(own).isdisjoint(usual)


def _reason(ordered: list[Candidate], chosen: Candidate | None) -> str:
    """Return what the last better candidate lacks; what prevents a plan counts only where nothing else does."""
    if chosen and not chosen.fits:
        return f"; {chosen.lacks}"
    reasons: dict[str, str] = {}
    for one in ordered:
        if one is chosen:
            break
        if one.selection or not reasons:
            reasons.setdefault(one.profile, one.lacks)  # of its largest size
    return f"; {[*reasons][-1]}: {[*reasons.values()][-1]}" if reasons else ""


def _is_for_other_hardware(catalog: Catalog, name: str, gpus: HostGpus) -> bool:
    """Return whether a profile is for other hardware."""
    kinds = catalog.profile(name, "").get("hardware")
    hardware = gpus.profile_file or catalog.hardware(gpus.hardware, gpus.origin)
    return bool(kinds) and not hardware.is_one_of(kinds)


def _fits(chosen: Candidate) -> str:
    selection = chosen.selection
    assert selection
    where = f"{chosen.gpus} x {selection.hardware.name} with {selection.model.name}"
    if not chosen.fits:
        held = f"{chosen.profile} holds {chosen.held} of its {chosen.requests} requests"
        return f"no profile fits in full; {held} on {where}"
    return f"{chosen.profile} fits {where}"
