"""
The bytes of the Hub's cache: whatever system call or process writes them, a download makes it grow.

Pages written through mmap(2) are in no counter of /proc/PID/io, and a process that is not ours has no counter here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..plan import Plan
from ..weights import hub_cache

_BLOCK = 512  # bytes of st_blocks, stat(2)


def folder(plan: Plan, environ: Mapping[str, str]) -> Path:
    """Return the folder that a plan's weights are downloaded to."""
    named = plan.value("download-dir")
    return Path(str(named)) if named else hub_cache.folder({**environ, **plan.environment()})


def held(caches: Iterable[Path]) -> int:
    """Return the bytes on disk of every file that was downloaded or is being downloaded; a hole has none."""
    return sum(_blocks(blobs) for cache in caches for blobs in cache.glob("*/blobs"))


def _blocks(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat(follow_symlinks=False).st_blocks for entry in entries) * _BLOCK
    except OSError:  # a file was renamed meanwhile: the next look sees it
        return 0
