"""The tables of metrics.md."""

from __future__ import annotations

from prometheus_client.core import InfoMetricFamily

from dsv4_serve.healthcheck import checks
from dsv4_serve.healthcheck.metrics import FAMILIES, Family
from dsv4_serve.healthcheck.state import PHASES
from tools.reference.markdown import code, table


def tables() -> dict[str, str]:
    """Return every metric of a replica, and the values of its labels."""
    rows = ((code(exported(family)), "gauge", labels(family), family.about) for family in FAMILIES.values())
    every = {name: None for group in checks.GROUPS.values() for name in group}
    values = (
        ("phase", code(*PHASES)),
        ("group", code(*checks.GROUPS)),
        ("check", code(*every)),
        ("position", "of a token in its draft: `0`, `1` and so on"),
        ("source", "`gate` at the start, `live` for the traffic of the sliding window"),
        ("kind", code("drafted", "accepted")),
        ("gpu", "the PCI address: `0000:0a:00`"),
        ("xid", "the driver's error, or the one that the GPU's state is like: `79`"),
    )
    return {
        "metrics": table(("metric", "type", "labels", "what it is"), rows),
        "labels": table(("label", "values"), ((code(name), text) for name, text in values)),
    }


def exported(family: Family) -> str:
    """Return the name of the samples: Prometheus appends `_info` to that of an info metric."""
    return f"{family.name}_info" if family.kind is InfoMetricFamily else family.name


def labels(family: Family) -> str:
    """Return the names of the labels."""
    return code(*family.labels) if family.kind is not InfoMetricFamily else "one for each package"
