"""Count a cache's kernels before and after a start: what was added is what the start compiled."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from .kernel_cache import VARIABLES

_SCRATCH = frozenset({"tmp", "lock", "locks", "__pycache__", "startup_plan"})
_NO_KERNEL = (".lock", ".log")


def paths(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the compiler and the path of each kernel, without locks, logs and scratch files."""
    for compiler in VARIABLES.values():
        for parent, folders, names in os.walk(folder / compiler):
            folders[:] = [one for one in folders if one not in _SCRATCH]
            yield from ((compiler, os.path.join(parent, one)) for one in names if not one.endswith(_NO_KERNEL))  # noqa: PTH118


def count(folder: Path) -> dict[str, int]:
    """Return the number of kernels of each compiler."""
    found = Counter(compiler for compiler, _ in paths(folder))
    return {compiler: found[compiler] for compiler in VARIABLES.values()}


def sentence(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Return the message on what a start compiled, by compiler."""
    added = {name: files - before.get(name, 0) for name, files in after.items() if files > before.get(name, 0)}
    parts = ", ".join(f"{name} {files}" for name, files in sorted(added.items()))
    return (
        f"kernel cache: this start added {sum(added.values())} files: {parts}"
        if added
        else ("kernel cache: this start compiled nothing")
    )
