"""What a killed supervisor left behind is ended and removed by the next start, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsv4_serve.entrypoint import procfs
from dsv4_serve.entrypoint.supervisor import leftovers

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def record(run: Path, **fields: object) -> None:
    whole = {"boot": procfs.boot_id(), "folder": str(run / "none"), "processes": {}, "shared": [], **fields}
    (run / leftovers.FILE).write_text(json.dumps(whole))


def test_a_process_is_ended_if_it_is_the_recorded_one(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    start = procfs.start_ticks(sleeper.pid)
    assert start
    for other in ({"processes": {sleeper.pid: start + 1}}, {"processes": {sleeper.pid: start}, "boot": "another"}):
        record(tmp_path, **other)
        leftovers.end(tmp_path)
        assert sleeper.poll() is None
        assert not (tmp_path / leftovers.FILE).exists()
    record(tmp_path, processes={sleeper.pid: start})
    leftovers.end(tmp_path)
    assert sleeper.wait(10) == -15


def test_its_own_temporary_folder_is_removed_and_no_other(tmp_path: Path) -> None:
    for name, stays in (("dsv4-abc", False), ("other", True)):
        folder = tmp_path / name
        (folder / "below").mkdir(parents=True)
        record(tmp_path, folder=str(folder))
        leftovers.end(tmp_path)
        assert folder.exists() == stays


def test_only_files_of_shared_memory_itself_are_removed(tmp_path: Path) -> None:
    ours, mine = Path(f"/dev/shm/dsv4-test-{os.getpid()}"), tmp_path / "mine"
    ours.touch()
    mine.touch()
    record(tmp_path, shared=[str(ours), str(mine), f"/dev/shm/../..{mine}", "/dev/shm/..", "/dev/shm"])
    leftovers.end(tmp_path)
    assert (ours.exists(), mine.exists()) == (False, True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"boot": 1}', "[" * 5000])
def test_a_record_that_makes_no_sense_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / leftovers.FILE).write_text(text)
    leftovers.end(tmp_path)
