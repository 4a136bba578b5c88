"""
`PROFILE=auto`: the largest profile that fits these GPUs and this model, and why the next larger one does not. Pure.

Larger is a longer context, then more requests. A profile fits when its plan resolves and every request that it promises
runs at full length at once (`fit.Memory.steady_state_requests`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..catalog.catalog import Catalog
from ..errors import ConfigError
from ..memory.estimate import Memory, memory
from ..plan import Setting
from ..request import Request
from .layers import resolve
from .select import Found, Selection, select

AUTO = "auto"
_MEMORY = ("weights", "kv-cache")  # judged here, by the same figures and in fewer words


def settle(catalog: Catalog, request: Request, find: Callable[[], Found]) -> Request:
    """
    Return the request with the profile that `auto` stands for, and the reasons in its origin; others as they are.

    Raise ConfigError when no profile fits. What memory keeps out is the reason rather than what a rule keeps out.
    """
    asked = request.choices.get("profile")
    if asked is None or asked.value != AUTO:
        return request
    named = request.choices.get("hardware")
    found = Found(named.value, named.origin) if named else find()
    refused = ""
    for name in largest_first(catalog, gpus=found.gpus):
        candidate = _with_profile(request, Setting(name, asked.origin))
        try:
            selection = select(catalog, candidate, lambda: found)
            plan = resolve(selection, dataclasses.replace(candidate, skip=(*candidate.skip, *_MEMORY)))
        except ConfigError as error:
            if not refused and not _is_fenced(catalog, name, found):
                refused = f"; {name}: {str(error).rstrip('.')}"
        else:
            facts = memory(selection, plan.flags)
            short = _short_of(facts) if facts else ""
            if not short:
                return _with_profile(
                    request, Setting(name, f"{asked.origin} {AUTO}: {_fits(name, selection)}{refused}")
                )
            refused = f"; {name}: {short}"
    raise ConfigError(f"{asked.origin}: no profile fits {found.hardware}{refused or '; none is made for it'}.")


def largest_first(catalog: Catalog, gpus: int | None = None) -> list[str]:
    """Return the profiles in the order of trial; where GPUs are not counted, those that ask for a number come last."""

    def size(name: str) -> tuple[bool, int, int]:
        entry = catalog.profile(name, "")
        flags = entry.flags()
        any_number = gpus is not None or "tensor-parallel-size" not in flags
        context = flags.get("max-model-len", 0)
        requests = entry.get("requests") or flags.get("max-num-seqs", 0)
        return any_number, context if isinstance(context, int) else 0, requests  # `auto` leaves the context to vLLM

    return sorted(catalog.names("profile"), key=size, reverse=True)


def _is_fenced(catalog: Catalog, name: str, found: Found) -> bool:
    """Tell whether a profile is for other hardware, so that its absence needs no reason."""
    kinds = catalog.profile(name, "").get("hardware")
    return bool(kinds) and not catalog.hardware(found.hardware, found.origin).is_one_of(kinds)


def _with_profile(request: Request, profile: Setting) -> Request:
    return dataclasses.replace(request, choices={**request.choices, "profile": profile})


def _fits(name: str, selection: Selection) -> str:
    return f"{name} fits {selection.tensor_parallel_size} x {selection.hardware.name} with {selection.model.name}"


def _short_of(facts: Memory) -> str:
    """Return what is missing for all requests that a plan promises, or nothing."""
    if facts.left_gib <= 0:
        return f"the weights take {facts.weights_gib:.1f} GiB a GPU and leave nothing for a KV cache"
    if not facts.sized or facts.steady_state_requests >= facts.requests:
        return ""
    left = f"{facts.left_gib:.1f} are left"
    if not facts.admits:
        return f"one request needs {facts.request_gib:.1f} GiB of KV cache, {left}"
    return f"{facts.requests} requests need {facts.requests_gib:.1f} GiB of KV cache, {left}"
