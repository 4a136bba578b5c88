"""A module of ours that works beside a start, in a process of low priority that ends with this one."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

from .. import procfs

_LAST = 2000  # bytes of a failed process's output, of which the last line is returned


async def run(module: str, *arguments: str, environ: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run `python -m MODULE ARGUMENTS` and return its exit status, and the last line that it wrote if that is not 0."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=_in_child,
    )
    _, output = await process.communicate()
    assert process.returncode is not None
    last = output[-_LAST:].decode(errors="replace").strip().rpartition("\n")[2]
    return process.returncode, last if process.returncode else ""


def _in_child() -> None:
    procfs.end_with_parent()
    os.nice(10)
