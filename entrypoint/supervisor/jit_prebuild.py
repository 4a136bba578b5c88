"""
Compile modules of FlashInfer beside a first start, before vLLM asks for them.

vLLM compiles each when it comes to it and waits; one C++ file then keeps one core busy for a minute and a half, twice
in a first start on 2 x H200 (vLLM 0.32.0, 2026-11-22, docs/speed.md). Begun with the start, both are there by then.
FlashInfer's own lock makes vLLM wait for one that is not, and ninja finds nothing to do for one that is.

A module is named as `MODULE:FUNCTION`, the function that returns its build specification. No GPU is touched: the
architecture is that of FLASHINFER_CUDA_ARCH_LIST.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .. import procfs

_LAST = 2000  # bytes of what a failed compiler said, from which its last line is shown


async def compile_all(names: Sequence[str], environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """
    Compile in a process of low priority that has vLLM's variables; nothing is started for no names.

    Say how it ended where it failed: vLLM compiles by itself then.
    """
    if not names:
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __spec__.name, *names),
        env={**environ, "CUDA_VISIBLE_DEVICES": ""},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=_humble,
    )
    _, said = await process.communicate()
    if process.returncode:
        last = said[-_LAST:].decode(errors="replace").strip().rpartition("\n")[2]
        say(f"note: compiling ahead ended with status {process.returncode} ({last}); vLLM compiles by itself")


def _humble() -> None:
    procfs.end_with_parent()
    os.nice(10)


def specification(name: str) -> Any:
    """Return what FlashInfer builds a module from; raise ImportError or AttributeError for a name that it has not."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)()


def main(names: Sequence[str]) -> None:
    """Compile all of them side by side, each under FlashInfer's lock; raise what FlashInfer raises."""
    found = [specification(name) for name in names]  # one by one: its modules import each other
    with ThreadPoolExecutor(len(found)) as side_by_side:
        list(side_by_side.map(lambda one: one.build(need_lock=True), found))


if __name__ == "__main__":
    main(sys.argv[1:])
