"""
What a killed supervisor leaves behind: its processes, its temporary folder and shared memory.

Nothing can be tidied up after SIGKILL, so they are recorded in the run directory while vLLM runs. The next start ends
what is still there: an engine that ignores SIGTERM would keep the port and the GPUs. A process is told from a later one
with the same id by the time of its start, and found without being recorded by the temporary folder in its environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .. import procfs
from . import atomic_file, state_file

FILE = "processes.json"
PREFIX = "dsv4-"
EVERY = 10.0  # seconds between two looks at the processes
PATIENCE = 5.0  # seconds between SIGTERM and SIGKILL
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Leftovers:
    """`processes` are starts in clock ticks after boot, by process id; `folder` is vLLM's for temporary files."""

    boot: str
    folder: str
    processes: dict[int, int] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)


async def record(
    run_folder: Path, folder: Path, shared: Callable[[], set[Path]], nap: Callable[[float], Awaitable[None]]
) -> None:
    """Keep the record of what is below this process, until cancelled; `nap` waits, and may end early."""
    last = None
    while True:
        below = await asyncio.to_thread(procfs.descendants, os.getpid())
        pids = [process.pid for process in below]
        starts = {pid: start for pid in pids if (start := procfs.start_ticks(pid))}
        now = Leftovers(procfs.boot_id(), str(folder), starts, sorted(map(str, shared())))
        if now != last and atomic_file.write(run_folder / FILE, json.dumps(asdict(now))):
            last = now
        await nap(EVERY)


def forget(run_folder: Path) -> None:
    """Remove the record: nothing is left."""
    with contextlib.suppress(OSError):
        (run_folder / FILE).unlink()


def end(run_folder: Path) -> None:
    """End what an earlier supervisor of this run directory left, and remove its files."""
    left = state_file.read(run_folder / FILE, Leftovers)
    if left is None:
        return
    remaining = _end_processes(left) if left.boot == procfs.boot_id() else []
    if remaining:
        log.error(
            f"processes {remaining} of an earlier `dsv4 serve` survived SIGKILL: they wait in a driver call, and may"
            " still hold GPU memory."
        )
    shared = (path for path in map(Path, left.shared) if path.parent == Path(procfs.SHARED))
    procfs.remove(shared, remaining)
    folder = Path(left.folder)
    if folder.name.startswith(PREFIX) and folder.is_dir() and folder.stat().st_uid == os.getuid():
        shutil.rmtree(folder, ignore_errors=True)
    forget(run_folder)


def _end_processes(left: Leftovers) -> list[int]:
    """End them, with SIGKILL if necessary, and return those that survive."""
    found = _found(left)
    if found:
        log.warning(f"ending {len(found)} processes that an earlier `dsv4 serve` left behind when it was killed")
    began = time.monotonic()
    while found and time.monotonic() - began < 2 * PATIENCE:
        procfs.signal_all(found, kill=time.monotonic() - began > PATIENCE)
        time.sleep(0.1)
        found = _found(left)
    return sorted(found)


def _found(left: Leftovers) -> set[int]:
    """Return the processes of a record that still live, and those below them."""
    recorded = {pid for pid, start in left.processes.items() if procfs.start_ticks(pid) == start}
    found = recorded | procfs.with_variable("TMPDIR", left.folder)
    below = {process.pid for pid in found for process in procfs.descendants(pid)}
    return (found | below) - {os.getpid()}
