"""
Read the weights into the page cache while vLLM starts, so that it loads them from memory (`supervise.prefetch`).

vLLM imports for a minute before it opens the first shard, and then reads one file after the other in each rank. Here a
process that ends with vLLM reads four at a time. Weights that memory cannot hold are not read.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from ..plan import Plan
from ..weights import hub_cache, prefetch
from . import background, cache_growth

log = logging.getLogger(__name__)


def folder(plan: Plan, environ: Mapping[str, str]) -> Path | None:
    """Return the folder of the model's weights, its own or a snapshot in the Hub's cache; None where there is none."""
    model, revision = str(plan.value("model", "")), str(plan.value("revision") or "main")
    if Path(model).is_dir():
        return Path(model)
    repository = hub_cache.repository_folder(cache_growth.folder(plan, environ), model)
    with contextlib.suppress(OSError):  # a commit has no file there
        revision = (repository / "refs" / revision).read_text(encoding="utf-8").strip()
    snapshot = repository / "snapshots" / revision
    return snapshot if snapshot.is_dir() else None


async def read(where: Path | None) -> None:
    """Read every shard in a process of low priority; a failure is only logged, since vLLM then reads by itself."""
    if where is None:
        return
    began = time.monotonic()
    status, last = await background.run(prefetch.__name__, str(where))
    if status:
        why = last.partition("Error: ")[2] or last or f"status {status}"  # without the class of the error
        log.info(f"note: the weights were not prefetched: {why}")
        return
    seconds = max(time.monotonic() - began, 1e-6)
    size = sum(file.stat().st_size for file in where.glob(prefetch.PATTERN))
    log.info(f"weights prefetched: {size / 1e9:.1f} GB in {seconds:.0f} s, {size / seconds / 1e9:.2f} GB/s")
