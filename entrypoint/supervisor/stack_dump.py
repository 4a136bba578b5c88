"""Dump what the processes of a hung engine are doing: Python stacks (py-spy, if installed), and /proc."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

SECONDS = 10.0
MOST = 16  # processes


async def dump(pids: Sequence[int]) -> str:
    """Return a page of text, with one section for each process."""
    sibling = Path(sys.executable).parent / "py-spy"
    spy = str(sibling) if sibling.exists() else shutil.which("py-spy")
    sections = await asyncio.gather(*(_section(pid, spy) for pid in pids[:MOST]))
    return "\n".join(sections)


async def _section(pid: int, spy: str | None) -> str:
    head = (
        f"process {pid} {_read(pid, 'comm')}: {_state(pid)}, waits in {_read(pid, 'wchan').strip('0') or 'user space'}"
    )
    return f"{head}\n{await _stack(pid, spy) if spy else 'py-spy is not installed: no Python stack'}\n"


async def _stack(pid: int, spy: str) -> str:
    """Read the stacks without pausing the process: a paused one might never resume."""
    spying = await asyncio.create_subprocess_exec(
        spy,
        "dump",
        "--nonblocking",
        "--pid",
        str(pid),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(spying.communicate(), SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            spying.kill()
        await spying.wait()
        return f"py-spy returned no stack within {SECONDS:.0f} s"
    return out.decode(errors="replace").strip()


def _state(pid: int) -> str:
    status = _read(pid, "status")
    return next((line.partition(":")[2].strip() for line in status.splitlines() if line.startswith("State:")), "gone")


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace").strip()
    except OSError:
        return ""
