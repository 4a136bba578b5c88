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
SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
REFUSED = "no Python stack: reading it was refused"
_PY_SPY_WAS_REFUSED = "permission denied"  # in either case: py-spy's word, and the kernel's
_BACKTRACE = "Stack backtrace:"  # of py-spy itself


async def dump(pids: Sequence[int]) -> str:
    """Return a page of text, with one section for each process; where stacks were refused, it ends with the reason."""
    sibling = Path(sys.executable).parent / "py-spy"
    spy = str(sibling) if sibling.exists() else shutil.which("py-spy")
    sections = await asyncio.gather(*(_section(pid, spy) for pid in pids[:MOST]))
    refused = any(REFUSED in section for section in sections)
    return "\n".join([*sections, f"{_reason()}\n"] if refused else sections)


async def _section(pid: int, spy: str | None) -> str:
    head = (
        f"process {pid} {_read(pid, 'comm')}: {_state(pid)}, waits in {_read(pid, 'wchan').strip('0') or 'user space'}"
    )
    return f"{head}\n{await _stack(pid, spy) if spy else 'py-spy is not installed: no Python stack'}\n"


async def _stack(pid: int, spy: str) -> str:
    """Read the stacks without pausing the process: a paused one might never resume."""
    argv, pipe = (spy, "dump", "--nonblocking", "--pid", str(pid)), asyncio.subprocess.PIPE
    try:
        spying = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    except (OSError, RuntimeError) as error:  # such as a limit of processes, which made the engine hang, too
        return f"no Python stack: py-spy could not be started ({error})"
    try:
        async with asyncio.timeout(SECONDS):
            out, _ = await spying.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            spying.kill()
        await spying.wait()
        return f"py-spy returned no stack within {SECONDS:.0f} s"
    text = out.decode(errors="replace")
    if spying.returncode and _PY_SPY_WAS_REFUSED in text.lower():
        return REFUSED
    return text.partition(_BACKTRACE)[0].strip()


def _reason() -> str:
    """Return who refuses, and what allows it: a capability would not, as only root gets it in a container."""
    try:
        scope = int(SCOPE.read_text(encoding="ascii"))
    except (OSError, ValueError):
        scope = 0
    if scope:
        return (
            f"Python stacks cannot be read, because kernel.yama.ptrace_scope of this host is {scope}; allow it with"
            " `sysctl kernel.yama.ptrace_scope=0` on the host."
        )
    return (
        "Python stacks cannot be read, because a security profile (seccomp, AppArmor, SELinux) or another user id"
        " forbids ptrace; the default profiles of Docker and podman allow it."
    )


def _state(pid: int) -> str:
    status = _read(pid, "status")
    return next((line.partition(":")[2].strip() for line in status.splitlines() if line.startswith("State:")), "gone")


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace").strip()
    except OSError:
        return ""
