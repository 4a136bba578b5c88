"""The processes below this one, from /proc: who they are, what they keep in shared memory, and ending them all."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
SHARED = "/dev/shm/"  # noqa: S108
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_LISTEN = "0A"  # include/net/tcp_states.h
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent ends, so that none is lost."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """Ask for SIGTERM when the parent ends; to be called in a child before it executes its program."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def trim() -> None:
    """Give freed memory back: of the headers of 35 shards 20 MiB would stay (CPython 3.11, 2026-11-22)."""
    gc.collect()
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def descendants(pid: int) -> list[int]:
    """Return the ids of all living processes below `pid`, parents first; zombies are left out."""
    children: dict[int, list[int]] = {}
    for one in everyone():
        if (found := _state_and_parent(one)) and found[0] != "Z":
            children.setdefault(found[1], []).append(one)
    below, todo = [], [pid]
    while todo:
        todo += (found_below := children.get(todo.pop(0), []))
        below += found_below
    return below


def _state_and_parent(pid: int) -> tuple[str, int] | None:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])


def shared_files(pids: Iterable[int]) -> set[Path]:
    """Return the files of /dev/shm that these processes have mapped: those that vanish are not waited for."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError), (PROC / str(pid) / "maps").open(errors="replace") as maps:
            found |= {Path(line[line.index(SHARED) :].strip()) for line in maps if SHARED in line}
    return {path for path in found if not path.name.endswith(" (deleted)")}


def listening(pids: Iterable[int], port: int) -> int | None:
    """Return the first of these processes that listens on a TCP port."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            rows = [line.split() for line in (PROC / "self" / "net" / table).read_text().splitlines()[1:]]
            inodes = (row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port)
            sockets |= {f"socket:[{inode}]" for inode in inodes}
    return next((pid for pid in pids if sockets & _open_files(pid)), None) if sockets else None


def everyone() -> list[int]:
    """Return the ids of all processes that can be seen."""
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(descriptor.readlink()))
    return found


def end_all(pid: int, patience: float = 5.0, tidying: float = 2.0) -> list[int]:
    """
    Kill everything below `pid`, also what is started meanwhile; return who is still there after `patience` seconds.

    Python's resource trackers get `tidying` seconds more: they remove the semaphores and the shared memory of processes
    that were killed, and end by themselves.
    """
    began = time.monotonic()
    while (left := descendants(pid)) and time.monotonic() - began < patience:
        for one in left:
            if time.monotonic() - began > tidying or not _is_tracker(one):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
        time.sleep(0.02)
    return left


def _is_tracker(pid: int) -> bool:
    try:
        return b"multiprocessing.resource_tracker" in (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


def reap(patience: float = 15.0) -> None:
    """
    Take the status of every child that has ended, until none is left; wait for those that are on their way.

    A process shows as a zombie while its other threads are still ending, and holds its memory until they have: seconds
    for a worker with a GPU.
    """
    until = time.monotonic() + patience
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < until:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.02)


def remove(files: Iterable[Path]) -> None:
    """Remove shared memory that its owners did not live to remove."""
    for path in files:
        with contextlib.suppress(OSError):
            path.unlink()
