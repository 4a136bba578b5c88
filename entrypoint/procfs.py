"""
Descendant processes: find them, list their shared memory, and end them.

psutil finds and kills them; it is imported where it is needed, as that takes 20 ms and 1.2 MiB. Our own code does what
psutil lacks: prctl, returning freed memory, and reaping adopted orphans. It also lists mapped files, which psutil reads
from smaps: 71 ms for a process of 1 GiB, against 0.9 ms from maps (psutil 7.2.2, 2026-11-28).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

SHARED = "/dev/shm/"  # noqa: S108
OPEN_FILES = 65535
"""What vLLM sets too (`set_ulimit`); container engines allow 2**30, and programs that close each take minutes."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Make this process adopt descendants whose parent ends, so that none is lost."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def raise_open_files() -> None:
    """
    Raise the soft limit of open files to the hard one, at most to OPEN_FILES; children inherit it.

    Connections to the health port count against it, and many hosts start with 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def end_with_parent() -> None:
    """Receive SIGTERM when the parent ends; called in a child before it executes its program."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def trim() -> None:
    """Return freed memory to the system; reading 35 headers would otherwise keep 20 MiB (CPython 3.11, 2026-11-22)."""
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


def boot_id() -> str:
    """Return what names this boot of the machine; empty where it cannot be read."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def pids() -> set[int]:
    """Return every process that is seen from here."""
    return {int(path.name) for path in Path("/proc").glob("[0-9]*")}


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot; None when it has ended, or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])  # proc(5)


def with_variable(name: str, value: str) -> set[int]:
    """Return the processes of this user that were started with an environment variable."""
    found, variable = set(), f"{name}={value}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable in path.read_bytes().split(b"\0"):
                found.add(int(path.parent.name))
    return {pid for pid in found if start_ticks(pid)}


def signal_all(pids: Iterable[int], *, kill: bool) -> None:
    """Send SIGTERM, or SIGKILL, to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)


def shared_files(pids: Iterable[int]) -> set[Path]:
    """
    Return the files right in /dev/shm that these processes have mapped; one that has ended has none.

    Shared memory has no folders: what is in one there, such as weights on a RAM disk, is somebody's file.
    """
    files = set()
    for pid in pids:
        with contextlib.suppress(OSError), Path(f"/proc/{pid}/maps").open(errors="replace") as maps:
            files |= {Path(line.split(maxsplit=5)[5].rstrip("\n")) for line in maps if f" {SHARED}" in line}
    return {path for path in files if path.parent == Path(SHARED) and not path.name.endswith(" (deleted)")}


def listens(pid: int, port: int) -> bool:
    """Return whether a process listens on a TCP port; False if it has ended or belongs to another user."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return any(_is_listener(connection, port) for connection in psutil.Process(pid).net_connections("tcp"))
    return False


def listener(port: int) -> int | None:
    """Return the process that listens on a TCP port; None also if it belongs to another user or container."""
    import psutil

    connections = psutil.net_connections("tcp")
    return next((each.pid for each in connections if each.pid and _is_listener(each, port)), None)


def connected(pids: Iterable[int], port: int, *, inbound: bool) -> set[tuple[int, str]]:
    """
    Return which of these processes are connected at a TCP port, and to which address.

    `inbound` connections come to the port of these processes, others go to that port elsewhere; connections among
    these processes do not count.
    """
    import psutil

    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            connections = psutil.Process(pid).net_connections("tcp")
            found += [(pid, each) for each in connections if each.status == psutil.CONN_ESTABLISHED]
    own = {each.laddr for _, each in found}
    return {
        (pid, each.raddr.ip.removeprefix("::ffff:"))
        for pid, each in found
        if (each.laddr if inbound else each.raddr).port == port and each.raddr not in own
    }


def _is_listener(connection: Any, port: int) -> bool:
    return bool(connection.status == "LISTEN" and connection.laddr.port == port)


def end_all(pid: int, patience: float = 5.0, tidying: float = 2.0) -> list[int]:
    """
    Kill all descendants of `pid`, new ones too; return the pids that are still alive after `patience` seconds.

    Python's resource trackers are spared for `tidying` seconds: they remove the semaphores and the shared memory of
    killed processes, and end by themselves.
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
    Reap every child; wait up to `patience` seconds for those that are still ending.

    A process shows as a zombie while its other threads are still ending, and holds its memory until they have: seconds
    for a worker with a GPU.
    """
    until = time.monotonic() + patience
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < until:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.02)


def remove(files: Iterable[Path], survivors: Collection[int] = ()) -> None:
    """Remove shared memory whose owners were killed before they could; not what others than `survivors` have mapped."""
    files = set(files)
    others = pids() if files else set()
    for path in files - shared_files(others.difference(survivors)):
        with contextlib.suppress(OSError, ValueError):  # the latter for a record that was edited
            path.unlink()
