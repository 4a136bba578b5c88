"""A control group that allows few processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_HIERARCHIES = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
"""Of cgroup v1, and v2."""


@pytest.fixture
def few_pids() -> Iterator[Callable[[int], Path]]:
    """Return a new group with a limit; a process joins by its id in `cgroup.procs`. Skipped where none can be made."""
    made: list[Path] = []

    def group(limit: int) -> Path:
        for above in _HIERARCHIES:
            folder = above / f"dsv4-test-{os.getpid()}-{len(made)}"
            with contextlib.suppress(OSError):
                folder.mkdir()
                made.append(folder)
                (folder / "pids.max").write_text(f"{limit}\n")
                return folder
        pytest.skip("no control group can be made here")

    yield group
    for folder in made:
        until = time.monotonic() + 30
        while folder.exists() and time.monotonic() < until:
            try:
                folder.rmdir()
            except OSError:  # its processes are ending
                time.sleep(0.05)
