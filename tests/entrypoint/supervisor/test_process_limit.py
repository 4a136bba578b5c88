"""`dsv4 serve` in a control group with few processes, over a program that dies of it without saying why."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from tests.entrypoint.supervisor.conftest import quick
from tests.support.replica import replica
from tests.support.small_pids import few_pids

__all__ = ["few_pids"]
pytestmark = pytest.mark.process
ABORTS = """#!{python}
import os, sys, threading
end = threading.Event()
try:
    for _ in range({threads}):
        threading.Thread(target=end.wait, daemon=True).start()
except RuntimeError:
    pass
print("terminate called without an active exception", flush=True)
os.abort()
"""

WAITS = ABORTS.replace('print("terminate called without an active exception", flush=True)\nos.abort()', "end.wait()")


def settings_of(text: str, folder: Path) -> dict[str, str]:
    """Write a program that stands in for vLLM, and return what serves with it."""
    program = folder / "vllm"
    program.write_text(text.format(python=sys.executable, threads=80))
    program.chmod(0o755)
    model = write_checkpoint(folder / "model")
    return {"PROFILE": "demo", "MODEL": f"demo={model}", "DSV4_VLLM": str(program), **quick()}


@pytest.mark.parametrize(("limit", "status"), [(60, 69), (2000, 87)])
def test_a_start_that_dies_at_the_limit_names_it_and_another_one_does_not(
    tmp_path: Path, few_pids: Callable[[int], Path], limit: int, status: int
) -> None:
    settings = settings_of(ABORTS, tmp_path)
    group = few_pids(limit)
    with replica(tmp_path / "replica", model_name="demo", seconds_to_stop=15, **settings) as running:
        (group / "cgroup.procs").write_text(f"{running.process.pid}\n")
        assert running.until_ended(60)[0] == status, running.log_text()
        ended = running.last_exit()
    assert ended["root"] == "terminate called without an active exception"
    named = f"The limit of {limit} processes and threads was reached (pids.max of a control group): raise it"
    assert (named in ended["sentence"]) == (status == 69), ended
    assert ("dsv4 bundle --support" in ended["sentence"]) == (status == 87), ended


@pytest.mark.parametrize("limit", [60, 2000])
def test_a_start_that_stalls_at_the_limit_names_it_and_another_one_does_not(
    tmp_path: Path, few_pids: Callable[[int], Path], limit: int
) -> None:
    settings = settings_of(WAITS, tmp_path) | {"DSV4_SUPERVISE_STALL_STARTING": "3"}
    group = few_pids(limit)
    with replica(tmp_path / "replica", model_name="demo", seconds_to_stop=15, **settings) as running:
        (group / "cgroup.procs").write_text(f"{running.process.pid}\n")
        assert running.until_ended(60)[0] == 84, running.log_text()
        sentence = running.last_exit()["sentence"]
    assert (f"The limit of {limit} processes and threads was reached" in sentence) == (limit == 60), sentence
