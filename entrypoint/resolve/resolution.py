"""Resolve a request with the profile files to a selection and a plan."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ..catalog.catalog import Catalog
from ..errors import ConfigError, SeveralProblems, gathered, problems_of
from ..machine.gpus import HostGpus
from ..plan import Plan, Setting
from ..request import Request
from . import auto
from .constraints import require_known
from .environment import operator_layer
from .layers import resolve
from .select import Selection, select


@dataclass(frozen=True)
class Resolution:
    """A plan, and the profile files that it is made from."""

    selection: Selection
    plan: Plan


def resolve_request(
    catalog: Catalog,
    request: Request,
    find: Callable[[], HostGpus],
    check_names: Callable[[], Collection[str]],
) -> Resolution:
    """
    Return the plan for a request; raise ConfigError where there is none.

    `find` reads this host's GPUs, and is called only when no hardware is named. `check_names` returns the names
    of the doctor's checks, which may be skipped as constraints may.
    """
    problems: list[str] = []
    try:
        request = auto.settle(catalog, request, find)
        selection = select(catalog, request, find)
    except ConfigError as error:
        problems += problems_of(error)
        raise SeveralProblems([*request.problems, *problems, *_without_selection(catalog, request)]) from None
    gathered(problems, lambda: require_known(selection, request.skip, check_names), None)
    plan = gathered(problems, lambda: resolve(selection, request), None)
    if plan is None or problems:
        raise SeveralProblems(problems)
    return Resolution(selection, plan)


def _without_selection(catalog: Catalog, request: Request) -> list[str]:
    """Return other problems of a request that nothing can be selected for; the model was looked up before the rest."""
    problems: list[str] = []
    readers = {"profile": catalog.profile, "hardware": catalog.hardware, "nccl": catalog.nccl}
    for kind, read in readers.items():
        named = request.choices.get(kind)
        if named and named.value != "none" and not (kind == "profile" and auto.is_auto(named)):
            gathered(problems, functools.partial(_read, read, named), None)
    return problems + operator_layer(request.operator, frozenset(), request.skip)[1]


def _read(read: Callable[[str, str], object], named: Setting) -> None:
    read(str(named.value), named.origin)
