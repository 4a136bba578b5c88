"""
`PROFILE=auto`: the largest profile that fits these GPUs and this model, and why the next larger one does not. Pure.

Larger is a longer context, then more requests. A profile fits when its plan resolves and every request that it promises
runs at full length at once (`MemoryEstimate.steady_state_requests`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..catalog.catalog import Catalog
from ..errors import ConfigError, problems_of
from ..machine.gpus import HostGpus
from ..memory.estimate import MemoryEstimate
from ..plan import TENSOR_PARALLEL_SIZE, Setting
from ..request import Request
from . import memory_inputs
from .constraints import MEMORY
from .layers import resolve
from .select import Selection, select

AUTO = "auto"


def settle(catalog: Catalog, request: Request, find: Callable[[], HostGpus]) -> Request:
    """
    Return the request with the profile that `auto` selects, and the reason in its origin; any other profile is kept.

    Raise ConfigError if no profile fits. A profile that does not fit memory is a better reason than one that violates
    a constraint.
    """
    requested = request.choices.get("profile")
    if requested is None or requested.value != AUTO:
        return request
    hardware, origin = request.choices.get("hardware"), requested.origin
    gpus = HostGpus(hardware.value, hardware.origin) if hardware else find()
    reason = ""
    for name in largest_first(catalog, gpus=gpus.count):
        candidate = _with_profile(request, Setting(name, origin))
        try:
            selection = select(catalog, candidate, lambda: gpus)
            plan = resolve(selection, dataclasses.replace(candidate, skip=(*candidate.skip, *MEMORY)))
        except ConfigError as error:
            if not reason and not _is_for_other_hardware(catalog, name, gpus):
                reason = f"; {name}: {problems_of(error)[0].rstrip('.')}"
        else:
            memory = memory_inputs.estimate(selection, plan.flags)
            shortage = _shortage(memory) if memory else _uncounted(selection)
            if not shortage:
                return _with_profile(request, Setting(name, f"{origin} {AUTO}: {_fits(name, selection)}{reason}"))
            reason = f"; {name}: {shortage}"
    raise ConfigError(f"{origin}: no profile fits {gpus.hardware}{reason or '; none is written for it'}.")


def largest_first(catalog: Catalog, gpus: int | None = None) -> list[str]:
    """Return the profiles, largest first; without a GPU count, those that set a tensor parallel size come last."""

    def size(name: str) -> tuple[bool, int, int]:
        profile = catalog.profile(name, "")
        flags = profile.flags()
        any_number = gpus is not None or TENSOR_PARALLEL_SIZE not in flags
        context = flags.get("max-model-len", 0)
        requests = profile.get("requests") or flags.get("max-num-seqs", 0)
        return any_number, context if isinstance(context, int) else 0, requests  # `auto` leaves the context to vLLM

    return sorted(catalog.names("profile"), key=size, reverse=True)


def _is_for_other_hardware(catalog: Catalog, name: str, gpus: HostGpus) -> bool:
    """Return whether a profile is for other hardware, so that skipping it needs no reason."""
    kinds = catalog.profile(name, "").get("hardware")
    hardware = gpus.profile_file or catalog.hardware(gpus.hardware, gpus.origin)
    return bool(kinds) and not hardware.is_one_of(kinds)


def _with_profile(request: Request, profile: Setting) -> Request:
    return dataclasses.replace(request, choices={**request.choices, "profile": profile})


def _fits(name: str, selection: Selection) -> str:
    return f"{name} fits {selection.tensor_parallel_size} x {selection.hardware.name} with {selection.model.name}"


def _uncounted(selection: Selection) -> str:
    """Return why a plan without an estimate is not chosen; nothing where the hardware itself has no memory to count."""
    sized = selection.hardware.get("memory_gib") and selection.weights_gib is None
    return f"the memory of {selection.model.name} is not counted here" if sized else ""


def _shortage(memory: MemoryEstimate) -> str:
    """Return what is missing for all requests that a plan promises, or nothing."""
    if memory.kv_available_gib <= 0:
        return f"the weights take {memory.weights_gib:.1f} GiB per GPU and leave no room for a KV cache"
    if not memory.sized or memory.steady_state_requests >= memory.requests:
        return ""
    remaining = f"but only {memory.kv_available_gib:.1f} GiB remain"
    if not memory.admits:
        return f"one request needs {memory.request_gib:.1f} GiB of KV cache, {remaining}"
    return f"{memory.requests} requests need {memory.requests_gib:.1f} GiB of KV cache, {remaining}"
