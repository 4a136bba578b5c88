"""What others' starts left for the KV cache lies within the band that `dsv4 fit` prints for the same settings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.memory.estimate import MemoryEstimate
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve import memory_inputs
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select
from tests.support.program import ROOT

LOGS: list[dict[str, Any]] = json.loads((ROOT / "qualification/results/memory/public-logs.json").read_text())["logs"]


def counted(log: dict[str, Any], **changes: Any) -> MemoryEstimate:
    """The count for a log's settings, on top of its model's and its hardware's own."""
    names = {"profile": "64k", "model": log["model"], "hardware": log["hardware"]}
    flags = {name: Setting(value, "log") for name, value in (log["flags"] | changes).items()}
    flags["tensor-parallel-size"] = Setting(log["tp"], "log")
    request = Request({key: Setting(name, "log") for key, name in names.items()}, command_line=Layer(flags))
    selection = select(Catalog([]), request, lambda: pytest.fail("the hardware was named"))
    skip = ("weights", "kv-cache", "tensor-parallel-size", "profile-model", "gpu-count")
    resolved = resolve(selection, Request(request.choices, skip=skip, command_line=request.command_line))
    found = memory_inputs.estimate(selection, resolved.flags)
    assert found
    return found


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log["name"])
def test_a_public_log_lies_within_the_band(log: dict[str, Any]) -> None:
    memory = counted(log)
    band, off = memory.uncertainty_gib, memory.kv_available_gib - log["kv_gib"]
    print(
        f"{log['name']:<26} {memory.kv_available_gib:7.2f} counted {log['kv_gib']:7.2f} logged {off:+.2f} of ± {band:.2f}"
    )
    assert abs(off) <= band
    if "within" in log:
        assert memory.kv_available_gib == pytest.approx(log["kv_gib"], rel=log["within"])
    assert memory.at_best.admits or not log.get("started", True)
