"""What is known of a start on a machine, for the advice about its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dsv4_serve.entrypoint import process_limits
from dsv4_serve.entrypoint.process_limits import ProcessLimit
from dsv4_serve.entrypoint.supervisor import advice
from tests.support.plans import request, resolved


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("known", [True, False])
def test_a_limit_of_processes_is_named_on_one_gpu_and_on_several(
    monkeypatch: pytest.MonkeyPatch, size: int, known: bool
) -> None:
    before, now = ProcessLimit("/g", 50, 40, refused=0), ProcessLimit("/g", 50, 4, refused=1)
    monkeypatch.setattr(process_limits, "read", lambda: (now,))
    plan = resolved(
        request(hardware="h200", model="w4a16", profile="64k", tensor_parallel_size=size, skip=("weights",))
    )
    machine: Any = SimpleNamespace(topology=SimpleNamespace(gpus=(), pairs={}))
    machine.seen_with = lambda _: machine
    context: Any = SimpleNamespace(environ={})
    found = advice.situation(plan, machine if known else None, context, limits=(before,))
    assert found.limit == now
    assert advice.situation(plan, machine if known else None, context).limit is None
