"""
A kernel pack on GPUs: what a first start takes without one and with one, and what requests compile all the same.

    python -m qualification.gpu.run_packs --out packs --share 2 --export-only
    python -m qualification.gpu.run_packs --out packs --share 2 --pack kernels.tar.xz

The first form starts from empty caches, sends prompts of every length as `dsv4 warm` does, then `--requests` of mixed
lengths, and exports. The second imports a pack of another host into empty caches, starts, and sends other requests. With
neither option both are done one after the other on this host. Each serves the plan at full size without weights; all
caches lie below `--out`/home. Writes `packs.json` after every step. The start of the first form, by which the second
one is judged, stands in the pack.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsv4_serve.entrypoint.bench import sweep
from dsv4_serve.entrypoint.cli import log
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.errors import UserError
from dsv4_serve.entrypoint.kernel_packs import place, source
from qualification.gpu import full_size
from qualification.gpu.full_size import Kept
from qualification.gpu.speed import Planned

LIMIT = 0.25
"""The share of a cold start that a start with a pack may take."""
PACK = "kernels.tar.xz"
ENDING = 25
"""Seconds before the deadline for the replica to end and for files to be written."""
EXPORTING = 40
"""Seconds before that to export what there is."""
DSV4 = (sys.executable, "-m", "dsv4_serve.entrypoint")


def main() -> int:
    parser = argparse.ArgumentParser(description="A first start without a kernel pack, and with one.")
    full_size.add_options(parser)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--export-only", action="store_true", help="make a pack, and start no second time")
    only.add_argument("--pack", type=Path, help="a pack of another host; without it one is made here")
    parser.add_argument(
        "--prebuild", action="store_true", help="compile kernels in many processes before the cold start"
    )
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--cold", type=float, help="seconds of the cold start (default: from the pack)")
    options, began = parser.parse_args(), time.monotonic()
    log.to_stderr()
    out = options.out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    kept = Kept(out / "packs.json", limit=LIMIT, **full_size.about(options))
    try:
        if options.pack is None:
            exported(options, kept, began + options.deadline)
        if not options.export_only:
            with full_size.deadline(began + options.deadline - ENDING - time.monotonic()):
                imported(options, kept)
    except (UserError, OSError, LookupError, ValueError, subprocess.CalledProcessError) as error:
        kept.add(failed=" ".join(f"{type(error).__name__}: {error}".split())[:600])
        return 1
    return 0 if options.export_only or passed(kept.found) else 1


def exported(options: argparse.Namespace, kept: Kept, until: float) -> None:
    """Start from empty caches, send requests, and export what was compiled, also if the time was too short."""
    environ = emptied(options.out)
    how = full_size.planned(options, environ)
    pack = options.out / PACK
    pack.unlink(missing_ok=True)
    try:
        with full_size.deadline(until - ENDING - EXPORTING - time.monotonic()):
            if options.prebuild:
                kept.add(prebuilt=asdict(full_size.prebuilt(options, how)[1]))
            started(how, options, kept, "cold", swept=True)
    finally:
        kept.add(export=dsv4(options.out, how, "export", "--out", str(pack)), pack_bytes=pack.stat().st_size)


def imported(options: argparse.Namespace, kept: Kept) -> None:
    """Import a pack into empty caches, start, and send requests."""
    pack = (options.pack or options.out / PACK).resolve()
    environ = emptied(options.out)
    how = full_size.planned(options, environ)
    cold = options.cold or cold_seconds(pack)
    kept.add(
        pack_bytes=pack.stat().st_size,
        cold_seconds=cold,
        **{"import": dsv4(options.out, how, "import", str(pack), "--unpinned")},
    )
    first = started(how, options, kept, "packed", swept=False)
    if cold:
        kept.add(of_cold=round(first["seconds"] / cold, 3))


def started(how: Planned, options: argparse.Namespace, kept: Kept, name: str, *, swept: bool) -> dict[str, Any]:
    """Start, keep its phases, send requests, and keep what the start and each kind of request compiled."""
    before, began = full_size.kernels(how.kernels), time.monotonic()
    context = int(how.plan.value("max-model-len", 8192))
    with local_replica.replica(how.serve, how.environ, options.out / name, options.deadline) as replica:
        found = {"seconds": round(time.monotonic() - began, 1), **replica.start}
        after = full_size.kernels(how.kernels)
        kept.add(**{name: {**found, "compiled": full_size.fresh(before, after)}})
        (options.out / f"{name}-kernels.txt").write_text(full_size.timeline(before, after), encoding="utf-8")
        if swept:
            done = asdict(sweep.run(replica.endpoint, sweep.lengths(how.plan)))
            before, after = after, full_size.kernels(how.kernels)
            kept.add(sweep={**done, "compiled": full_size.fresh(before, after)})
        seed = 1 if swept else 2  # not the requests that the pack was filled by
        done = full_size.ask(replica.endpoint, options.requests, seed, context)
        before, after = after, full_size.kernels(how.kernels)
        kept.add(**{f"{name}_requests": {**done, "compiled": full_size.fresh(before, after)}})
    return found


def cold_seconds(pack: Path) -> float | None:
    """Return how long the longest first start took by which a pack was filled."""
    with source.opened(str(pack)) as (file, name):
        manifest, _ = place.read_manifest(file, name)
    return max(manifest.plans.values(), default=None)


def passed(found: Mapping[str, Any]) -> bool:
    """Whether the aim is met: the share of the cold start, where that is known, and nothing compiled."""
    parts = [found[name]["compiled"]["files"] for name in ("packed", "packed_requests")]
    return found.get("of_cold", 0.0) <= LIMIT and not any(parts)


def emptied(out: Path) -> dict[str, str]:
    """Remove all caches, and return the environment that has them in one folder."""
    shutil.rmtree(out / "home", ignore_errors=True)
    return full_size.caches_in(out / "home")


def dsv4(out: Path, how: Planned, action: str, *arguments: str) -> dict[str, Any]:
    """Run `dsv4 kernels`, and return its seconds and its answer; its log goes to a file."""
    began = time.monotonic()
    argv = [*DSV4, "kernels", action, *arguments, "--format", "json", *how.serve]
    environ = {**os.environ, **how.environ}
    with (out / f"kernels-{action}.log").open("w") as errors:
        done = subprocess.run(argv, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True, check=True)
    return {"seconds": round(time.monotonic() - began, 1), "answer": json.loads(done.stdout)}


if __name__ == "__main__":
    sys.exit(main())
