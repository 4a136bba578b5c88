"""The table of auto.md: what `auto` chooses on each kind of GPU, from the shipped profile files."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.request import Request
from dsv4_serve.entrypoint.resolve import auto
from dsv4_serve.entrypoint.resolve.candidates import Candidate, of_profile
from tools.reference.markdown import code, table

COUNTS = (1, 2, 4, 8)
PRO = ("pro", "pro-0813", "pro-nvfp4", "pro-0813-nvfp4")
PRO_COUNTS = (4, 8, 16)


def tables() -> dict[str, str]:
    """Return what `auto` chooses, and what holds V4-Pro, for each hardware file and number of GPUs."""
    catalog = Catalog([])
    return {
        "auto": table(("hardware", "GPUs", *map(code, auto.NAMES)), rows(catalog)),
        "pro": table(("hardware", "GPUs", *map(code, PRO)), pro_rows(catalog)),
    }


def rows(catalog: Catalog) -> Iterator[tuple[str, ...]]:
    """Yield hardware, number, and a cell for each goal."""
    for hardware, count, found in _candidates(catalog.folders[-1]):
        best = [auto.best(auto.ranked(catalog, found, goal, count)) for goal in auto.NAMES]
        yield code(hardware), str(count), *(cell(one) for one in best)


@functools.cache
def _candidates(folder: Path) -> list[tuple[str, int, list[Candidate]]]:
    """Return the candidates for each kind and number of GPUs; they take two seconds. `folder` is the shipped one."""
    catalog = Catalog([])
    assert catalog.folders == [folder]
    kinds = [hardware.name for hardware in catalog.every_hardware() if hardware.get("interconnect") != "none"]
    return [
        (kind, count, auto.candidates(catalog, Request(), HostGpus(kind, "reference", count)))
        for kind in kinds
        for count in COUNTS
    ]


def pro_rows(catalog: Catalog) -> Iterator[tuple[str, ...]]:
    """Yield the hardware that holds one of V4-Pro's models, and how many requests of the profile `pro` run at once."""
    for hardware, count, found in _held(catalog.folders[-1]):
        if any(found):
            yield code(hardware), str(count), *(one or "no" for one in found)


@functools.cache
def _held(folder: Path) -> list[tuple[str, int, list[str]]]:
    """Return what each kind and number of GPUs holds of each model, as `_candidates` does; it takes a second."""
    catalog = Catalog([])
    assert catalog.folders == [folder]
    return [
        (hardware.name, count, [_pro(catalog, hardware.name, count, model) for model in PRO])
        for hardware in catalog.every_hardware()
        for count in PRO_COUNTS
    ]


def _pro(catalog: Catalog, hardware: str, count: int, model: str) -> str:
    request = Request({"model": Setting(model, "reference")})
    gpus = HostGpus(hardware, "reference", count)
    every = of_profile(catalog, request, "pro", gpus, "reference")
    found = next((one for one in every if one.gpus == count and one.held), None)
    return f"{found.held} of {found.requests}" if found else ""


def cell(one: Candidate | None) -> str:
    """Return profile, model, GPUs and requests; `none` where nothing starts."""
    if one is None or one.selection is None:
        return "none"
    held = "" if one.fits else f", {one.held} of {one.requests} requests"
    return f"{code(one.profile)}, {one.selection.model.name}, {one.gpus} GPU{'s' * (one.gpus != 1)}{held}"
