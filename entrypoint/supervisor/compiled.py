"""Count a cache's kernels before and after a start: what was added is what the start compiled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .kernel_cache import VARIABLES

_SCRATCH = frozenset({"tmp", "lock", "locks", "__pycache__"})
_NO_KERNEL = (".lock", ".log")


def count(folder: Path) -> dict[str, int]:
    """Return the number of files of each compiler, without locks, logs and scratch files."""
    found = {}
    for name in VARIABLES.values():
        files = 0
        for _, folders, names in os.walk(folder / name):
            folders[:] = [one for one in folders if one not in _SCRATCH]
            files += sum(not one.endswith(_NO_KERNEL) for one in names)
        found[name] = files
    return found


def sentence(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Return the message on what a start compiled, by compiler."""
    added = {name: files - before.get(name, 0) for name, files in after.items() if files > before.get(name, 0)}
    parts = ", ".join(f"{name} {files}" for name, files in sorted(added.items()))
    return (
        f"kernel cache: this start added {sum(added.values())} files: {parts}"
        if added
        else ("kernel cache: this start compiled nothing")
    )
