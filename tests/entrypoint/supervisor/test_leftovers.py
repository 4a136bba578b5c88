"""What a killed supervisor left behind is ended and removed by the next start, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsv4_serve.entrypoint import procfs
from dsv4_serve.entrypoint.supervisor import leftovers
from tests.support.patience import slowness

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
    assert sleeper.wait(10 * slowness()) == -15


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE", 0.3)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        record(tmp_path, processes={process.pid: procfs.start_ticks(process.pid)})
        leftovers.end(tmp_path)
        assert process.wait(10 * slowness()) == -9


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
        assert process.wait(10 * slowness()) == -15
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


def test_the_record_holds_what_is_below_and_is_written_when_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below, writes, naps = [[7, 8, 9], [7, 8, 9], [7]], [], []
    file = tmp_path / leftovers.FILE
    monkeypatch.setattr(procfs, "descendants", lambda _: [SimpleNamespace(pid=pid) for pid in below.pop(0)])
    monkeypatch.setattr(procfs, "start_ticks", lambda pid: None if pid == 8 else 100 + pid)

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        writes.append(json.loads(file.read_text())["processes"])
        file.write_text(json.dumps({"processes": "as before"}))
        if not below:
            raise asyncio.CancelledError

    shared = {Path("/dev/shm/b"), Path("/dev/shm/a")}
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(leftovers.record(tmp_path, Path("/tmp/dsv4-x"), lambda: shared, nap))
    assert writes == [{"7": 107, "9": 109}, "as before", {"7": 107}]
    assert naps == [leftovers.EVERY] * 3


def test_the_record_is_tried_again_where_it_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(file: Path, text: str) -> bool:
        assert file == tmp_path / leftovers.FILE
        written.append(text)
        return len(written) > 1

    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 4:
            raise asyncio.CancelledError

    monkeypatch.setattr(procfs, "descendants", lambda _: [])
    monkeypatch.setattr(leftovers.atomic_file, "write", write)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(leftovers.record(tmp_path, Path("/tmp/dsv4-x"), set, nap))
    assert len(written) == 2
    assert json.loads(written[0]) == {"boot": procfs.boot_id(), "folder": "/tmp/dsv4-x", "processes": {}, "shared": []}


class Clock:
    """Processes that end at some time, or never, and what was done to them meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends: dict[int, float]) -> None:
        self.now, self.ends = 100.0, ends
        self.signals: list[tuple[float, bool]] = []
        monkeypatch.setattr(leftovers.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(leftovers.time, "sleep", self.sleep)
        monkeypatch.setattr(procfs, "signal_all", self.signal)
        monkeypatch.setattr(procfs, "start_ticks", lambda pid: 5 if self.now < ends.get(pid, 0) else None)
        monkeypatch.setattr(procfs, "with_variable", lambda *_: set())
        monkeypatch.setattr(procfs, "descendants", lambda _: [])

    def sleep(self, seconds: float) -> None:
        assert seconds == 0.1
        self.now += 1.0

    def signal(self, found: set[int], *, kill: bool) -> None:
        self.signals.append((self.now - 100.0, kill))


def test_they_get_sigterm_then_sigkill_and_those_that_survive_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch, {7: 1e9, 8: 103.0, 9: 1e9})
    record(tmp_path, processes={7: 5, 8: 5, 9: 5})
    leftovers.end(tmp_path)
    assert clock.signals == [(float(at), at > leftovers.PATIENCE) for at in range(10)]
    assert caplog.messages[0] == "ending 3 processes that an earlier `dsv4 serve` left behind when it was killed"
    assert caplog.messages[1].startswith("processes [7, 9] of an earlier `dsv4 serve` survived SIGKILL: they wait in a")
    assert len(caplog.messages) == 2
    assert not (tmp_path / leftovers.FILE).exists()


def test_nothing_is_said_where_nothing_lives_and_the_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch, {8: 102.5})
    record(tmp_path, processes={7: 5})
    leftovers.end(tmp_path)
    assert (clock.signals, caplog.messages) == ([], [])
    record(tmp_path, processes={8: 5})
    leftovers.end(tmp_path)
    assert [at for at, _ in clock.signals] == [0.0, 1.0, 2.0]
    assert len(caplog.messages) == 1


def test_it_never_ends_itself_and_finds_what_is_below_others(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, {7: 1e9, os.getpid(): 1e9})
    tree: dict[int, list[int]] = {7: [70, 71], 3: [30]}
    monkeypatch.setattr(procfs, "descendants", lambda pid: [SimpleNamespace(pid=p) for p in tree.get(pid, [])])
    named: list[tuple[str, str]] = []

    def with_variable(name: str, value: str) -> set[int]:
        named.append((name, value))
        return {3, os.getpid()}

    monkeypatch.setattr(procfs, "with_variable", with_variable)
    left = leftovers.Leftovers("boot", "/tmp/dsv4-x", {7: 5, 8: 5, os.getpid(): 5})
    assert leftovers._found(left) == {7, 70, 71, 3, 30}
    assert named == [("TMPDIR", "/tmp/dsv4-x")]


def test_a_folder_of_another_user_stays_and_one_that_cannot_be_removed_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dsv4-abc"
    folder.mkdir()
    record(tmp_path, folder=str(folder))
    monkeypatch.setattr(leftovers.os, "getuid", lambda: folder.stat().st_uid + 1)
    leftovers.end(tmp_path)
    assert folder.exists()
    monkeypatch.undo()

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("busy")

    record(tmp_path, folder=str(folder))
    monkeypatch.setattr(leftovers.os, "rmdir", fails)
    leftovers.end(tmp_path)
    assert folder.exists()
    monkeypatch.undo()
    file = tmp_path / "dsv4-file"
    file.touch()
    record(tmp_path, folder=str(file))
    leftovers.end(tmp_path)
    assert file.exists()


def test_without_a_record_there_is_nothing_to_forget(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    leftovers.forget(tmp_path)
    leftovers.end(tmp_path)
    assert caplog.messages == []
