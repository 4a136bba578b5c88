"""`dsv4 serve` over the stand-in for vLLM, with short times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint import procfs
from tests.support.patience import slowness
from tests.support.program import executable
from tests.support.replica import Replica, Start, replica
from tests.support.small_disk import small_disk

__all__ = ["small_disk"]


def quick() -> dict[str, str]:
    """Short times; an engine that waits for a core on a busy machine does not look hung within them."""
    most = slowness(4)
    return {
        "DSV4_SUPERVISE_POLL": "0.1",
        "DSV4_SUPERVISE_READY_GRACE": f"{0.5 * most:.1f}",
        "DSV4_SUPERVISE_LIVE_GRACE": f"{1.5 * most:.1f}",
        "DSV4_SUPERVISE_IDLE_CANARY_EVERY": "0.3",
        "DSV4_SUPERVISE_DRAIN_WAIT": "0.3",
        "DSV4_SUPERVISE_STOP_GRACE": f"{3 * most:.1f}",
        "DSV4_GATE_TOKENS": "8",
    }


@pytest.fixture(autouse=True)
def servers_of_other_tests_live_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending all that is below this process, as the supervisor does with its own, spares what was there before."""
    before, descendants = {one.pid for one in procfs.descendants(os.getpid())}, procfs.descendants
    if before:
        monkeypatch.setattr(
            procfs, "descendants", lambda pid: [one for one in descendants(pid) if one.pid not in before]
        )


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """`dsv4 serve` with the stand-in for vLLM; keywords are environment variables."""
    program = executable(tmp_path / "vllm", "tests.support.stand_in")
    model = write_checkpoint(tmp_path / "model")

    @contextmanager
    def run(fault: str = "", *words: str, **env: str) -> Iterator[Replica]:
        settings = {
            **quick(),
            "PROFILE": "demo",
            "MODEL": f"demo={model}",
            "DSV4_VLLM": str(program),
            "STAND_IN": fault,
            **env,
        }
        with replica(tmp_path / "replica", *words, model_name="stand-in", seconds_to_stop=15, **settings) as running:
            yield running

    return run
