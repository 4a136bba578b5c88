"""Which processes import in advance: as many as the shape of one server has, where that is known."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.plan import Setting, Value
from dsv4_serve.entrypoint.supervisor import spare_processes
from dsv4_serve.entrypoint.supervisor.spare_processes import VARIABLE


@pytest.mark.parametrize(
    ("flags", "spares"),
    [
        ({}, "1"),
        ({"tensor-parallel-size": 2}, "1,2"),
        ({"tensor-parallel-size": 4, "enable-expert-parallel": True}, "1,4"),
        ({"tensor-parallel-size": 2, "pipeline-parallel-size": 2}, "1,4"),
        ({"tensor-parallel-size": 2, "api-server-count": 1}, "1,2"),
        ({"distributed-executor-backend": "mp"}, "1,1"),
        ({"distributed-executor-backend": "uni"}, "1"),
        ({"tensor-parallel-size": 2, "distributed-executor-backend": "ray"}, None),
        ({"tensor-parallel-size": 2, "api-server-count": 2}, None),
        ({"tensor-parallel-size": 2, "numa-bind": True}, None),
        ({"tensor-parallel-size": 8, "nnodes": 2}, None),
        ({"data-parallel-size": 2}, None),
        ({"tensor-parallel-size": 2, "headless": True}, None),
    ],
)
def test_spares_follow_the_shape(flags: dict[str, Value], spares: str | None) -> None:
    settings = {name: Setting(value, "test") for name, value in flags.items()}
    assert spare_processes.variables(settings).get(VARIABLE) == spares
