"""Resolve a request with the profile files to a selection and a plan."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ..catalog.catalog import Catalog
from ..errors import ConfigError, SeveralProblems, problems_of
from ..machine.gpus import HostGpus
from ..plan import Plan
from ..request import Request
from . import auto
from .constraints import require_known
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
    try:
        request = auto.settle(catalog, request, find)
        selection = select(catalog, request, find)
    except ConfigError as error:
        raise SeveralProblems([*request.problems, *problems_of(error)]) from None
    require_known(selection, request.skip, check_names)
    return Resolution(selection, resolve(selection, request))
