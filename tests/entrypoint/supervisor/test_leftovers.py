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


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE", 0.3)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        record(tmp_path, processes={process.pid: procfs.start_ticks(process.pid)})
        leftovers.end(tmp_path)
        assert process.wait(10) == -9


def test_processes_that_are_not_recorded_are_found_by_their_temporary_folder_and_below_others(tmp_path: Path) -> None:
    folder, env = tmp_path / "dsv4-abc", dict(os.environ)
    folder.mkdir()
    script = (
        f"import subprocess; print(subprocess.Popen({SLEEP!r}, env={{}}).pid, flush=True); import time; time.sleep(60)"
    )
    run = [sys.executable, "-c", script]
    with subprocess.Popen(run, stdout=subprocess.PIPE, env={**env, "TMPDIR": str(folder)}) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        assert leftovers._found(leftovers.Leftovers(procfs.boot_id(), str(folder))) == {process.pid, child}
        record(tmp_path, folder=str(folder))
        leftovers.end(tmp_path)
        assert process.wait(10) == -15
    assert not procfs.start_ticks(child) or Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"


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
