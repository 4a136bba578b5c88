"""Look at this host's GPUs, when no hardware was named."""

from __future__ import annotations

from collections.abc import Mapping

from dsv4_serve.entrypoint import nvml
from dsv4_serve.entrypoint.choose import Found
from dsv4_serve.entrypoint.sheets import Library


def find(library: Library, environ: Mapping[str, str]) -> Found:
    """Return the hardware that NVML shows, and how many GPUs; raise ConfigError when there is none that is known."""
    names = nvml.gpu_names(environ)
    sheet = nvml.match(names, library.every_hardware())
    return Found(sheet.name, f"NVML: {len(names)} x {names[0]}", len(names))
