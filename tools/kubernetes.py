"""
Generate what Kubernetes needs from other files.

    python -m tools.kubernetes rules       the operator's rules, from deploy/prometheus/alerts.yml
    python -m tools.kubernetes capacity    the table in docs/how-to/kubernetes.md, as `dsv4 fit` counts
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.memory.estimate import MemoryEstimate
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve import memory_inputs
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select
from tools.tables import renewed

ROOT = Path(__file__).resolve().parents[1]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
RULES = ROOT / "deploy/kubernetes/components/monitoring/rules.yaml"
PAGE = ROOT / "docs/how-to/kubernetes.md"
MADE = (
    "# Made from deploy/prometheus/alerts.yml by `python -m tools.kubernetes rules`; see docs/how-to/monitoring.md.\n"
)
PROFILES = ("64k", "128k", "256k", "524k", "640k", "1m")
ROWS = (("rtx-pro-6000", 2), ("rtx-pro-6000", 4), ("h200", 2), ("b300", 2))
"""Kinds of GPU and how many a replica has: those of the overlays."""


def rules(alerts: str) -> str:
    """Return Prometheus' rules as the object that its operator takes."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "dsv4", "namespace": "dsv4"},
        "spec": yaml.safe_load(alerts),
    }
    return MADE + yaml.safe_dump(rule, sort_keys=False, width=120, allow_unicode=True)


def counted(profile: str, hardware: str, size: int) -> tuple[str, MemoryEstimate | None]:
    """Return the model that a profile serves there when none is named, and its memory; None where it does not start."""
    names = {"profile": profile, "hardware": hardware}
    given = Layer({"tensor-parallel-size": Setting(size, "table")})
    request = Request({name: Setting(value, "table") for name, value in names.items()}, command_line=given)
    try:
        selection = select(Catalog([]), request, lambda: HostGpus(hardware, "table"))
        return selection.model.name, memory_inputs.estimate(selection, resolve(selection, request).flags)
    except ConfigError:
        return "", None


def capacity() -> Iterator[str]:
    """Yield the table's lines: full-length requests that fit a replica at once, in steady state."""
    yield "| GPUs of a replica | " + " | ".join(f"`{profile}`" for profile in PROFILES) + " |"
    yield "|---" * (len(PROFILES) + 1) + "|"
    for hardware, size in ROWS:
        yield f"| {size} × {hardware} | " + " | ".join(_cell(p, hardware, size) for p in PROFILES) + " |"


def _cell(profile: str, hardware: str, size: int) -> str:
    model, found = counted(profile, hardware, size)
    return f"{model}: {found.steady_state_requests}" if found and found.admits else "no"


def page(text: str) -> str:
    """Return the page with its table made anew."""
    return renewed(text, {"capacity": "\n".join(capacity()) + "\n"}, PAGE)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["rules"]:
            RULES.write_text(rules(ALERTS.read_text(encoding="utf-8")), encoding="utf-8")
        case ["capacity"]:
            PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        case _:
            sys.exit(__doc__)
