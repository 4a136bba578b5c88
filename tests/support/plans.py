"""Plans as the command resolves them, without a process and without a look at this machine."""

from __future__ import annotations

from typing import Any

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import Selection, select

CATALOG = Catalog([])
"""The shipped profile files."""
CHOICES = ("profile", "model", "hardware", "nccl")


def request(**requested: Any) -> Request:
    """A request of choices, of flags on the command line, and of `skip` and `operator`; keywords are their names."""
    skip, operator = requested.pop("skip", ()), requested.pop("operator", {})
    choices = {name: Setting(requested.pop(name), "test") for name in CHOICES if name in requested}
    flags = {name if "." in name else name.replace("_", "-"): Setting(v, "test") for name, v in requested.items()}
    return Request(choices, skip=skip, command_line=Layer(flags), operator=operator)


def selected(request: Request, catalog: Catalog = CATALOG, gpus: HostGpus | None = None) -> Selection:
    """The selection for a request, on an H200 where it names no hardware."""
    return select(catalog, request, lambda: gpus or HostGpus("h200", "test"))


def resolved(request: Request, catalog: Catalog = CATALOG, gpus: HostGpus | None = None) -> Plan:
    """The plan for a request."""
    return resolve(selected(request, catalog, gpus), request)
