"""Packages that vLLM 0.32.0 imports for what a plan asks of it, and does not bring."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping

_TRACES = {
    "opentelemetry-api": "opentelemetry.trace",
    "opentelemetry-sdk": "opentelemetry.sdk.trace",
    "opentelemetry-exporter-otlp-proto-grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter.otlp.proto.http",
}
"""Packages of `vllm/tracing/otel.py`, and the modules by which they are found."""


def missing_for_traces(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the packages for traces that are missing."""
    modules = missing(_TRACES.values(), environ)
    return tuple(package for package, module in _TRACES.items() if module in modules)


def missing(modules: Iterable[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the modules that are missing; none where vLLM has a Python of its own, whose modules are not seen."""
    if environ.get("DSV4_VLLM") or not _installed("vllm"):
        return ()
    return tuple(module for module in modules if not _installed(module))


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent is missing
        return False
