"""A box of one CPU plan, and a small replica whose engine is scripted."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench.options import ServeOptions
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.local_replica import Started
from dsv4_serve.entrypoint.doctor.report import DoctorReport
from dsv4_serve.entrypoint.machine.machine import Machine
from dsv4_serve.entrypoint.qualify.asking import asking
from dsv4_serve.entrypoint.qualify.box import Box
from dsv4_serve.entrypoint.qualify.checkpoint import SmallCheckpoint
from dsv4_serve.entrypoint.qualify.small import SmallReplica
from dsv4_serve.entrypoint.resolve.layers import resolve
from tests.entrypoint.qualify.engine import ANSWER, REACH, engine
from tests.support.plans import request, selected


@pytest.fixture
def make_box(tmp_path: Path) -> Callable[..., Box]:
    def make(seconds: float = 60, **choices: str) -> Box:
        requested = request(**(choices or {"hardware": "cpu", "profile": "demo-v4", "model": "demo-v4=/nowhere/small"}))
        selection = selected(requested)
        return Box(
            selection=selection,
            plan=resolve(selection, requested),
            machine=Machine(),
            serve=ServeOptions({}),
            environ={},
            folder=tmp_path,
            until=time.monotonic() + seconds,
            doctor=lambda: DoctorReport(()),
        )

    return make


@pytest.fixture
def box(make_box: Callable[..., Box]) -> Box:
    return make_box()


@pytest.fixture
def replica_of(tmp_path: Path) -> Iterator[Callable[..., SmallReplica]]:
    """A small replica of an engine with the given faults; `at_once` requests are answered together where more come."""
    with ExitStack() as stack:

        def make(decides: Callable[..., int], at_once: int = 1, **named: Any) -> SmallReplica:
            server = stack.enter_context(engine(decides, **named))
            endpoint = Endpoint(server.url)
            asker = stack.enter_context(asking(endpoint))
            process: subprocess.Popen[bytes] = subprocess.Popen.__new__(subprocess.Popen)
            process.returncode = 0
            started = Started(endpoint, tmp_path / "log", {}, process)
            model = SmallCheckpoint(tmp_path, "bf16", ANSWER, REACH)
            if at_once > 1:
                send = asker.at_once

                def together(questions: Any, seconds: float) -> Any:
                    server.together = threading.Barrier(len(questions))
                    try:
                        return send(questions, seconds)
                    finally:
                        server.together = threading.Barrier(1)

                asker.at_once = together  # type: ignore[method-assign]
            return SmallReplica(model, started, asker)

        yield make
