"""Real vLLM on a CPU under `dsv4 serve`, with the demo's checkpoint: about 35 s to ready on two idle cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from tests.faults.noted import SETTINGS
from tests.support.kinds import leave_out
from tests.support.replica import Replica, Start, replica
from tests.support.running_demo import PATIENT
from tests.support.small_disk import small_disk

__all__ = ["small_disk"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Start:
    """`dsv4 serve WORDS`; keywords are environment variables, `folder` is where its files go."""

    def run(*words: str, folder: Path | None = None, **env: str) -> AbstractContextManager[Replica]:
        settings: dict[str, Any] = {
            **PATIENT,
            **{f"DSV4_{name.upper().replace('.', '_').replace('-', '_')}": str(v) for name, v in SETTINGS.items()},
            "PROFILE": "demo",
            "MODEL": f"demo={model}",
            **env,
        }
        return replica(folder or tmp_path_factory.mktemp("replica"), *words, model_name="demo", **settings)

    return run


class Stock:
    """Replicas to be hurt, one a test: the next one starts while a test has its own."""

    def __init__(self, start: Start, count: int) -> None:
        self.start, self.count = start, count
        self.started: list[tuple[ExitStack, Replica]] = []

    def order(self) -> None:
        if self.count > 0:
            self.count -= 1
            stack = ExitStack()
            workers = ("--distributed-executor-backend", "mp")  # a process beside the engine, as on GPUs
            self.started.append((stack, stack.enter_context(self.start(*workers, MAX_NUM_SEQS="64"))))


@pytest.fixture(scope="session")
def stock(request: pytest.FixtureRequest, start: Start) -> Iterator[Stock]:
    stock = Stock(start, sum("ready" in getattr(item, "fixturenames", ()) for item in request.session.items))
    stock.order()
    yield stock
    for stack, _ in stock.started:
        stack.close()


@pytest.fixture
def ready(request: pytest.FixtureRequest) -> Iterator[Replica]:
    """
    A replica that is ready, and may be ended: for `make faults` this test's alone.

    Else it is the one that other tests have asked before, as each takes as long to start as ten of them.
    """
    if not os.environ.get("RECORD_FAULTS"):
        running = request.getfixturevalue("keyed_demo")
        running.until_ready(300)
        yield running
        return
    stock = request.getfixturevalue("stock")
    stack, running = stock.started.pop()
    stock.order()
    with stack:
        running.until_ready(300)
        yield running


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave those to `make faults` that take a start of vLLM of their own, all but a few."""
    if os.environ.get("RECORD_FAULTS"):
        return
    here = str(Path(__file__).parent)
    own = (item for item in items if str(item.path).startswith(here))
    leave_out(config, items, [item for item in own if item.get_closest_marker("everyday") is None])
