"""Run `dsv4 warm`: start a plan once, so that every kernel it needs is compiled into the cache, and stop it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import text_table
from ..client import local_replica
from ..plan import Plan
from ..resolve.select import Selection
from ..supervisor import kernel_cache
from . import command, kernel_prebuild, load, sweep
from .options import ServeOptions

log = logging.getLogger(__name__)


def warm(
    resolved: tuple[Selection, Plan], serve: ServeOptions, environ: Mapping[str, str], *, dummy: bool, again: bool
) -> dict[str, Any]:
    """
    Return `{"folder", "starts": [{"seconds", "phases", "caches", "swept"}], "filled": {FOLDER: {"files", "mib"}}}`, and
    `{"prebuilt": {"kernels", "seconds", "failed"}}` where kernels were compiled before the first start.

    `filled` is what the first start added to the folder, by compiler; `swept` is how long prompts of every length took
    (`sweep.SweepResult`). `resolved` is what `serve` resolves to. `dummy` starts without weights, `again` starts
    twice. Raise UserError if the replica does not become ready.
    """
    (selection, plan), environ = resolved, load.program_in(environ)
    folder = kernel_cache.installed_folder(plan, environ)
    before, filled, lengths = contents(folder), {}, sweep.lengths(plan)
    starts: list[dict[str, Any]] = []
    with local_replica.stops_raise():
        prebuilt = kernel_prebuild.of_plan(selection, plan, environ)
        if dummy:
            serve, weights = command.dummy(selection, plan, serve, environ)
            log.info(weights)
        for number in range(2 if again else 1):
            starts.append(_start(serve, environ, lengths))
            if not number:
                filled = added(before, contents(folder))
    before_start = {"prebuilt": asdict(prebuilt)} if prebuilt else {}
    return {"folder": str(folder), **before_start, "starts": starts, "filled": filled}


def _start(serve: ServeOptions, environ: Mapping[str, str], lengths: list[int]) -> dict[str, Any]:
    """Start once, and send prompts of every length."""
    began = time.monotonic()
    with local_replica.replica(serve.argv(), environ, local_replica.scratch(), serve.start_seconds) as replica:
        seconds = round(time.monotonic() - began, 1)
        log.info(f"ready after {seconds:.0f} s; its caches were {replica.start.get('caches', 'unknown')}")
        swept = sweep.run(replica.endpoint, lengths)
    slowest = f"the slowest, of {swept.at} tokens, {swept.slowest:.2f} s"
    log.info(f"{swept.prompts} prompts took {swept.seconds:.0f} s, {slowest}; stopped")
    return {"seconds": seconds, **replica.start, "swept": asdict(swept)}


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Return files and bytes in each compiler's folder of a cache."""
    sizes_in = {}
    for inside in kernel_cache.VARIABLES.values():
        sizes = [file.stat().st_size for file in (folder / inside).rglob("*") if file.is_file()]
        sizes_in[inside] = (len(sizes), sum(sizes))
    return sizes_in


def added(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, float]]:
    """Return what was added to each folder, without folders that got nothing."""
    return {
        name: {"files": files - before[name][0], "mib": round((size - before[name][1]) / (1 << 20), 1)}
        for name, (files, size) in after.items()
        if files > before[name][0]
    }


def text(summary: Mapping[str, Any]) -> str:
    """Return what was filled and how long it took, for people."""
    lines = [["filled", "files", "MiB"]]
    lines += [[name, str(part["files"]), f"{part['mib']:.1f}"] for name, part in summary["filled"].items()]
    parts = [
        f"kernels are kept in {summary['folder']}",
        text_table.table(lines) if len(lines) > 1 else "nothing remained to compile",
    ]
    names = dict.fromkeys(name for start in summary["starts"] for name in start.get("phases", {}))
    spent = [start.get("phases", {}) for start in summary["starts"]]
    phases = [[name, *(f"{seconds.get(name, 0.0):.1f}" for seconds in spent)] for name in names]
    head = [["phase", "first, s", "second, s"][: 1 + len(summary["starts"])]]
    total = ["until ready", *(f"{start['seconds']:.1f}" for start in summary["starts"])]
    swept = [
        [name, *(f"{start['swept'][key]:.2f}" for start in summary["starts"])]
        for name, key in (("prompts of every length", "seconds"), ("the slowest of them", "slowest"))
    ]
    return "\n".join([*parts, text_table.table([*head, *phases, total, *swept])])
