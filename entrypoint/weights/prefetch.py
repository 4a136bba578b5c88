"""
Read weights into the page cache, so that the next start loads them from memory.

    python -m dsv4_serve.entrypoint.weights.prefetch FOLDER
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import plain_file
from ..errors import ConfigError, HostError

PATTERN = "*.safetensors"
RESERVE = 0.1
"""Share of the memory that stays free for what else runs."""
_CHUNK = 16 << 20
_THREADS = 4  # one stream does not fill an NVMe disk


@dataclass(frozen=True)
class Prefetched:
    """What was read, and how fast; from the page cache it is as fast as memory."""

    folder: str
    files: int
    bytes: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.bytes / max(self.seconds, 1e-6)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "rate": round(self.rate)}


def available(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Return the bytes that the page cache may take: of this host, or of this container if it has a limit."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        return min(free, int(limit.read_text()))
    except (OSError, ValueError):  # `max`, or another version of cgroups
        return free


def prefetch(folder: Path, memory: int) -> Prefetched:
    """
    Read every shard once; `memory` is what the page cache may take.

    Raise ConfigError where there are no weights, HostError where they do not fit or cannot be read.
    """
    files = sorted(folder.glob(PATTERN))
    if not files:
        raise ConfigError(f"{folder} has no {PATTERN}; name the folder of a model's weights with --to.")
    try:
        size = sum(file.stat().st_size for file in files)
        if size > memory * (1 - RESERVE):
            raise HostError(
                f"{folder} has {size / 1e9:.1f} GB, and the page cache may take {memory / 1e9:.1f} GB here, a tenth of"
                " which is kept free: files would push each other out, so nothing was read."
            )
        began = time.monotonic()
        with ThreadPoolExecutor(_THREADS) as pool:
            read = sum(pool.map(_read, files))
    except OSError as error:
        raise HostError(f"{error.filename or folder} cannot be read ({error.strerror}).") from None
    return Prefetched(str(folder), len(files), read, round(time.monotonic() - began, 3))


def _read(file: Path) -> int:
    """Read a file into one buffer, again and again; its pages stay in the cache."""
    buffer, done = bytearray(_CHUNK), 0
    with plain_file.open_regular(file) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while count := os.readv(stream.fileno(), [buffer]):
            done += count
    return done


if __name__ == "__main__":
    prefetch(Path(sys.argv[1]), available())
