"""
Triton's groups name their files by absolute path, and are ignored in any other folder.

So a cache that is moved compiles all of Triton's kernels again (triton 3.9.0, `FileCacheManager.get_group`). A pack
holds the groups with a mark in place of the folder; an import puts the folder of the new host there.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

MARK = "@FOLDER@"
LARGEST = 1 << 20
"""Bytes of a group; a larger file is none."""


def moves(path: str) -> bool:
    """Tell whether a file of the cache names its neighbours by absolute path."""
    name = PurePosixPath(path).name
    return name.startswith("__grp__") and name.endswith(".json")


def packed(path: str, data: bytes) -> bytes:
    """Return a group as a pack holds it; unchanged where it is none."""
    return _with_folder(data, f"{MARK}/{PurePosixPath(path).parent}")


def placed(path: str, data: bytes, folder: Path) -> bytes:
    """Return a group as a cache in `folder` needs it."""
    return _with_folder(data, str(folder / PurePosixPath(path).parent))


def _with_folder(data: bytes, folder: str) -> bytes:
    try:
        group = json.loads(data)
        names = list(group["child_paths"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return data
    if list(group) != ["child_paths"] or not isinstance(group["child_paths"], dict):
        return data
    return json.dumps({"child_paths": {name: f"{folder}/{name}" for name in names}}).encode()
