"""
The processes below this one: who they are, what they keep in shared memory, and ending them all.

psutil finds and kills them; it is imported where it is needed, as that takes 20 ms and 1.2 MiB. Kept by hand is what it
lacks: prctl, giving freed memory back, and reaping adopted orphans; and the names of mapped files, which it reads from
smaps, in 71 ms for a process of 1 GiB against 0.9 ms from maps (psutil 7.2.2, 2026-11-28).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

SHARED = "/dev/shm/"  # noqa: S108
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
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


def descendants(pid: int) -> list[psutil.Process]:
    """Return all living processes below `pid`, parents first, without zombies; none when it has ended."""
    import psutil

    living = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    living.append(process)
    return living


def shared_files(pids: Iterable[int]) -> set[Path]:
    """Return the files of /dev/shm that these processes have mapped; one that has ended has none."""
    files = set()
    for pid in pids:
        with contextlib.suppress(OSError), Path(f"/proc/{pid}/maps").open(errors="replace") as maps:
            files |= {Path(line[line.index(SHARED) :].strip()) for line in maps if SHARED in line}
    return {path for path in files if not path.name.endswith(" (deleted)")}


def listens(pid: int, port: int) -> bool:
    """Tell whether a process listens on a TCP port; not when it has ended, or is another user's."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return any(_is_listener(connection, port) for connection in psutil.Process(pid).net_connections("tcp"))
    return False


def listener(port: int) -> int | None:
    """Return the process that listens on a TCP port; None also when it is another user's or another container's."""
    import psutil

    connections = psutil.net_connections("tcp")
    return next((found.pid for found in connections if found.pid and _is_listener(found, port)), None)


def _is_listener(connection: Any, port: int) -> bool:
    return bool(connection.status == "LISTEN" and connection.laddr.port == port)


def end_all(pid: int, patience: float = 5.0, tidying: float = 2.0) -> list[int]:
    """
    Kill everything below `pid`, also what is started meanwhile; return who is still there after `patience` seconds.

    Python's resource trackers get `tidying` seconds more: they remove the semaphores and the shared memory of processes
    that were killed, and end by themselves.
    """
    import psutil

    began = time.monotonic()
    while (remaining := descendants(pid)) and time.monotonic() - began < patience:
        for process in remaining:
            with contextlib.suppress(psutil.Error):
                if time.monotonic() - began > tidying or not _is_resource_tracker(process):
                    process.kill()
        time.sleep(0.02)
    return [process.pid for process in remaining]


def _is_resource_tracker(process: psutil.Process) -> bool:
    return any("multiprocessing.resource_tracker" in argument for argument in process.cmdline())


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
