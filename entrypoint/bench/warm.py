"""`dsv4 warm`: start a plan once so that every kernel it needs is compiled into the cache, and stop it again."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..supervisor import kernel_cache, provenance
from ..text_table import table
from . import command, load, started, sweep
from . import options as asked
from .command import Resolve, Say


def warm(
    options: argparse.Namespace, words: list[str], environ: Mapping[str, str], resolve: Resolve, say: Say
) -> dict[str, Any]:
    """
    Return `{"folder", "starts": [{"seconds", "phases", "caches", "swept"}], "filled": {FOLDER: {"files", "mib"}}}`.

    `filled` is what the first start added below the folder, by compiler; `swept` is what prompts of every length took
    then (`sweep.Swept`). Raise UserError where it is not ready.
    """
    if options.acceptance and not options.without_weights:
        raise UsageError("--acceptance is a rate by lot, for a replica without weights; add --without-weights.")
    environ = load.program_in(environ)
    resolved = _, plan = resolve(options, words)
    folder = kernel_cache.folder_of(plan, kernel_cache.build(provenance.versions(), provenance.patches()), environ)
    before, filled, lengths = contents(folder), {}, sweep.lengths(plan)
    starts: list[dict[str, Any]] = []
    with started.stops_raise():
        if options.without_weights:
            serve, said = command.plan_without_weights(options, words, environ, resolved)
            say(said)
        else:
            serve = command.serve_words(options, words)
        for number in range(2 if options.again else 1):
            began = time.monotonic()
            with started.replica(serve, environ, started.scratch(), say, asked.patience(options)) as replica:
                seconds = round(time.monotonic() - began, 1)
                say(f"ready after {seconds:.0f} s; its caches were {replica.start.get('caches', 'unknown')}")
                swept = sweep.run(replica.endpoint, lengths)
            starts.append({"seconds": seconds, **replica.start, "swept": asdict(swept)})
            slowest = f"the slowest, of {swept.at} tokens, {swept.slowest:.2f} s"
            say(f"{swept.prompts} prompts took {swept.seconds:.0f} s, {slowest}; stopped")
            if not number:
                filled = added(before, contents(folder))
    return {"folder": str(folder), "starts": starts, "filled": filled}


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Return files and bytes in each compiler's folder of a cache."""
    found = {}
    for inside in kernel_cache.VARIABLES.values():
        sizes = [file.stat().st_size for file in (folder / inside).rglob("*") if file.is_file()]
        found[inside] = (len(sizes), sum(sizes))
    return found


def added(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, float]]:
    """Return what came to each folder; those that got nothing are left out."""
    return {
        name: {"files": files - before[name][0], "mib": round((size - before[name][1]) / (1 << 20), 1)}
        for name, (files, size) in after.items()
        if files > before[name][0]
    }


def text(found: Mapping[str, Any]) -> str:
    """Return what was filled and how long it took, for people."""
    lines = [["filled", "files", "MiB"]]
    lines += [[name, str(one["files"]), f"{one['mib']:.1f}"] for name, one in found["filled"].items()]
    parts = [
        f"kernels are kept in {found['folder']}",
        table(lines) if len(lines) > 1 else "nothing was left to compile",
    ]
    names = dict.fromkeys(name for one in found["starts"] for name in one.get("phases", {}))
    phases = [[name, *(f"{one.get('phases', {}).get(name, 0.0):.1f}" for one in found["starts"])] for name in names]
    head = [["phase", "first, s", "second, s"][: 1 + len(found["starts"])]]
    total = ["until ready", *(f"{one['seconds']:.1f}" for one in found["starts"])]
    swept = [
        [name, *(f"{one['swept'][key]:.2f}" for one in found["starts"])]
        for name, key in (("prompts of every length", "seconds"), ("the slowest of them", "slowest"))
    ]
    return "\n".join([*parts, table([*head, *phases, total, *swept])])
