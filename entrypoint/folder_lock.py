"""Lock a folder, so that one command at a time works in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import HostError


@contextlib.contextmanager
def locked(folder: Path, command: str) -> Iterator[None]:
    """Lock an existing folder during the block; raise HostError where another process has locked it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostError(f"Another {command} works in {folder}; wait for it, or stop it.") from None
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(descriptor)
