"""What other processes use is told where it is much; what is measured, and its load generator, is not counted."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from dsv4_serve.entrypoint.tune import other_load
from dsv4_serve.entrypoint.tune.other_load import OtherLoad


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@pytest.mark.process
def test_this_process_is_another_one_for_a_tree_that_it_is_not_in() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as sleeper:
        began, others = time.monotonic(), OtherLoad(sleeper.pid)
        burn(1)
        assert others.cores() * (time.monotonic() - began) > 0.8
        sleeper.kill()


@pytest.mark.process
def test_a_tree_has_the_time_of_its_children_when_they_run_and_when_they_have_ended() -> None:
    before = other_load._of_tree(os.getpid())
    burning = "import sys, time\nwhile time.process_time() < 1: pass\nprint(flush=True); sys.stdin.read()"  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", burning], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        running = other_load._of_tree(os.getpid())
    assert running - before > 0.8
    assert other_load._of_tree(os.getpid()) >= running


@pytest.mark.parametrize(
    ("busy", "tree", "cores", "told"),
    [
        ((100.0, 340.0), (10.0, 10.0), 32, "other processes used 24.0 of 32 cores meanwhile"),
        ((100.0, 340.0), (10.0, 245.0), 32, ""),
        ((100.0, 114.0), (10.0, 10.0), 32, ""),
        ((100.0, 106.0), (10.0, 10.0), 2, "other processes used 0.6 of 2 cores"),
        ((100.0, 100.0), (10.0, 11.0), 2, ""),
    ],
)
def test_much_load_is_told_and_little_is_not(
    monkeypatch: pytest.MonkeyPatch, busy: tuple[float, float], tree: tuple[float, float], cores: int, told: str
) -> None:
    clock, busies, trees = iter((0.0, 10.0)), iter(busy), iter(tree)
    monkeypatch.setattr(other_load.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(other_load, "_busy", lambda: next(busies))
    monkeypatch.setattr(other_load, "_of_tree", lambda _root: next(trees))
    monkeypatch.setattr(other_load.os, "cpu_count", lambda: cores)
    found = OtherLoad().sentence()
    assert found.startswith(told)
    assert bool(found) == bool(told)
