"""The packages that vLLM 0.32.0 imports for its traces (`vllm/tracing/otel.py`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

_MODULES = {
    "opentelemetry-api": "opentelemetry.trace",
    "opentelemetry-sdk": "opentelemetry.sdk.trace",
    "opentelemetry-exporter-otlp-proto-grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter.otlp.proto.http",
}


def missing(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the packages that are missing; none where vLLM has a Python of its own, whose packages are not seen."""
    if environ.get("DSV4_VLLM") or not _installed("vllm"):
        return ()
    return tuple(package for package, module in _MODULES.items() if not _installed(module))


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent is missing
        return False
