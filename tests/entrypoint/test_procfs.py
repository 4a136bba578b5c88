"""Processes below ours: found, ended, and cleaned up after, with real ones."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dsv4_serve.entrypoint import procfs
from tests.support.patience import slowness, until

TREE = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 1:
    subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def run_in_child(body: str) -> subprocess.CompletedProcess[str]:
    code = f"from dsv4_serve.entrypoint import procfs\nimport os, subprocess, sys, time\nTREE={TREE!r}\n{body}"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60 * slowness(), check=True
    )


def test_all_that_is_below_is_found_parents_first() -> None:
    child = subprocess.Popen([sys.executable, "-c", TREE, TREE], stdout=subprocess.PIPE)
    try:
        assert until(lambda: len(procfs.descendants(child.pid)) == 1, 60)
        below = [process.pid for process in procfs.descendants(os.getpid())]  # with what else this process has started
        (grandchild,) = procfs.descendants(child.pid)
        assert below.index(child.pid) < below.index(grandchild.pid)
    finally:
        for process in [*procfs.descendants(child.pid), child]:
            process.kill()
        child.wait()


def test_orphans_in_a_session_of_their_own_that_ignore_sigterm_are_ended_too() -> None:
    done = run_in_child("""
procfs.adopt_orphans()
child = subprocess.Popen([sys.executable, "-c", TREE, TREE], stdout=subprocess.DEVNULL)
while len(procfs.descendants(os.getpid())) < 2: time.sleep(0.02)
both = [process.pid for process in procfs.descendants(os.getpid())]
child.kill(); child.wait()                      # the grandchild is an orphan now
left = procfs.end_all(os.getpid())
procfs.reap()
print(left, [os.path.exists(f"/proc/{pid}") for pid in both])
""")
    assert done.stdout.strip().splitlines()[-1] == "[] [False, False]"


def test_a_child_gets_a_signal_when_its_parent_is_killed() -> None:
    code = """
from dsv4_serve.entrypoint import procfs
import subprocess, time
print(subprocess.Popen(["sleep", "600"], preexec_fn=procfs.end_with_parent).pid, flush=True)
time.sleep(600)
"""
    done = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.stdout is not None
    child = int(done.stdout.readline())
    done.kill()
    done.wait()
    assert until(
        lambda: gone(child) or "Z" in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0], 60
    )


def test_shared_memory_of_a_process_is_seen_and_removed() -> None:
    code = """
from multiprocessing import shared_memory
import time
memory = shared_memory.SharedMemory(create=True, size=4096)
print(memory.name, flush=True)
time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert owner.stdout is not None
    path = Path("/dev/shm") / owner.stdout.readline().strip()
    found = procfs.shared_files([owner.pid])
    os.killpg(owner.pid, signal.SIGKILL)  # with its resource tracker, so that nobody tidies up
    owner.wait()
    assert found == {path}
    procfs.remove(found)
    assert not path.exists()


def test_what_lies_in_folders_of_shared_memory_or_has_another_owner_is_not_removed(tmp_path: Path) -> None:
    """Weights on a RAM disk are mapped too while they load, and so is what a replica next to this one keeps."""
    code = """
import mmap, sys, time
files = [open(path, "r+b") for path in sys.argv[1:]]
maps = [mmap.mmap(file.fileno(), 4096) for file in files]
print("mapped", flush=True)
time.sleep(600)
"""
    unique = tmp_path.parent.name + tmp_path.name
    weights = Path("/dev/shm", f"dsv4-test-{unique}", "model.safetensors")
    elsewhere = tmp_path / "dev/shm" / f"dsv4-test-{unique}-elsewhere"
    shared, own = (Path("/dev/shm", f"dsv4-test-{unique}-{name}") for name in ("shared", "own"))
    for path in (weights, elsewhere, shared, own):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(4096))
    owners = [
        subprocess.Popen([sys.executable, "-c", code, *map(str, paths)], stdout=subprocess.PIPE, text=True)
        for paths in ((weights, elsewhere, shared, own), (shared,))
    ]
    try:
        for owner in owners:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "mapped\n"
        found = procfs.shared_files([owners[0].pid])
        assert found == {shared, own}
        owners[0].kill()
        owners[0].wait()
        procfs.remove(found)
        assert (weights.exists(), shared.exists(), own.exists()) == (True, True, False)
        procfs.remove(found, {owners[1].pid})
        assert not shared.exists()
    finally:
        for owner in owners:
            owner.kill()
            owner.wait()
        for path in (weights, shared, own):
            path.unlink(missing_ok=True)
        weights.parent.rmdir()


def test_resource_trackers_live_long_enough_to_remove_what_the_killed_leave_in_shared_memory() -> None:
    done = run_in_child("""
code = '''
from multiprocessing import shared_memory
import time
print(shared_memory.SharedMemory(create=True, size=4096).name, flush=True)
time.sleep(600)
'''
procfs.adopt_orphans()
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
path = "/dev/shm/" + child.stdout.readline().strip()
before = os.path.exists(path)
print(procfs.end_all(os.getpid()), before, os.path.exists(path))
""")
    assert done.stdout.strip().splitlines()[-1] == "[] True False"


def test_who_listens_on_a_port_is_known() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        port = server.getsockname()[1]
        for number in (port, six.getsockname()[1]):
            assert procfs.listens(os.getpid(), number)
            assert procfs.listener(number) == os.getpid()
        assert not procfs.listens(os.getppid(), port)
    assert not procfs.listens(os.getpid(), port)
    assert procfs.listener(port) is None


def test_a_connection_is_no_listener(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert not procfs.listens(os.getpid(), client.getsockname()[1])


def test_a_process_that_has_ended_has_nothing_below_and_listens_nowhere() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert procfs.descendants(child.pid) == []
    assert not procfs.listens(child.pid, 1)
    assert procfs.shared_files([child.pid]) == set()


def test_a_zombie_is_not_below() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    try:
        assert until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, 60)
        assert child.pid not in [process.pid for process in procfs.descendants(os.getpid())]
    finally:
        child.wait()


@pytest.mark.parametrize(
    ("before", "after"), [((64, 256), 256), ((256, 256), 256), ((1024, 1 << 20), 65535), ((70000, 1 << 20), 70000)]
)
def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one(monkeypatch, before, after):
    limits = [before]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    procfs.raise_open_files()
    assert limits[-1] == (after, before[1])


def test_a_hard_limit_of_infinity_is_not_followed(monkeypatch):
    limits = [(1024, resource.RLIM_INFINITY)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    procfs.raise_open_files()
    assert limits[-1] == (65535, resource.RLIM_INFINITY)
