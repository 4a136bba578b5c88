"""
The file of KV offloading in /dev/shm, by the line in which vLLM names it (v1/kv_offload/cpu/shared_offload_region.py).

With tiers vLLM 0.32.0 removes it only at an orderly end: one that is killed, as for want of memory while it fills the
file, leaves all of it.
"""

from __future__ import annotations

import re
from pathlib import Path

from .parser import LogLine

_CREATED = re.compile(r"Created mmap file (/dev/shm/vllm_offload_[\w.-]+\.mmap) ")
_SOURCE = "shared_offload_region"


def created(line: LogLine) -> Path | None:
    """Return the file that a line of the log tells of; None for every other line."""
    found = _CREATED.match(line.text) if _SOURCE in line.source else None
    return Path(found[1]) if found else None
