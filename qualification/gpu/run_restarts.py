"""
Restarts on GPUs: a plan at full size without weights is started once for each variant, and its phases are kept.

    python -m qualification.gpu.run_restarts --out restart --share 2 --home packs/home - kill VLLM_ENABLE_STARTUP_PLAN=1

A variant is NAME=VALUE[,NAME=VALUE...] for the environment of its start, or - for none. `TAKE_GIB=2` holds so much memory of
the first GPU meanwhile. `kill` starts as the one before it, whose engine it kills while it serves: `down` is the time until
`dsv4 serve` has ended, `back` the time from the kill until the next start is ready, as a container would be that
restarts at once. All starts share the caches below `--home`, so the first one compiles what is not there; `--prebuild`
compiles kernels in many processes before it, as `dsv4 warm` does. Writes a line of `restart.jsonl` for each start as
soon as it is ready.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Any

import psutil

from dsv4_serve.entrypoint import procfs
from dsv4_serve.entrypoint.cli import log
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.client.local_replica import Started
from dsv4_serve.entrypoint.errors import UserError
from qualification.gpu import full_size
from qualification.gpu.run_packs import ENDING
from qualification.gpu.speed import Planned

KILL, TAKE = "kill", "TAKE_GIB"
ENGINE = "VLLM::EngineCor"
"""The first 15 characters of its title, which are what the kernel keeps of it."""
ENDED = 60.0
"""Seconds that `dsv4 serve` gets to notice it; after that it is stopped."""
FIRST_REQUESTS = 3
"""After each start: it has to answer, too."""
_HOLD = """
import sys, time, torch
kept = torch.empty(int(sys.argv[1]) << 30, dtype=torch.uint8, device="cuda:0")
print("taken", flush=True)
time.sleep(3600)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="A restart, in several ways.")
    full_size.add_options(parser)
    parser.add_argument("--home", type=Path, required=True, help="the folder of all caches")
    parser.add_argument(
        "--prebuild", action="store_true", help="compile kernels in many processes before the first start"
    )
    parser.add_argument("variants", nargs="+", metavar="VARIANT")
    options = parser.parse_args()
    log.to_stderr()
    options.out.mkdir(parents=True, exist_ok=True)
    how = full_size.planned(options, full_size.caches_in(options.home.resolve()))
    about = full_size.about(options)
    record = options.out / "restart.jsonl"
    done = 0
    try:
        with full_size.deadline(options.deadline - ENDING):
            if options.prebuild:
                print(json.dumps(asdict(full_size.prebuilt(options, how)[1])), flush=True)
            for line in starts(options, how):
                done += "failed" not in line
                with record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**line, **about}) + "\n")
                print(json.dumps(line), flush=True)
    except (UserError, OSError) as error:
        print(f"ended after {done} starts: {error}", flush=True)
    return 0 if done == len(options.variants) else 1


def starts(options: argparse.Namespace, how: Planned) -> Iterator[dict[str, Any]]:
    """Start each variant; what is killed for the next one is killed when the line of its start was kept."""
    killed_at, before, down = 0.0, "", None
    context = int(how.plan.value("max-model-len", 8192))
    for number, variant in enumerate(options.variants):
        named = before if variant == KILL else variant
        line: dict[str, Any] = {"number": number, "variant": variant}
        try:
            with memory_taken(settings(named).get(TAKE)):
                folder, environ = options.out / f"start-{number}", {**how.environ, **settings(named)}
                cached, began = full_size.kernels(how.kernels), time.monotonic()
                with local_replica.replica(how.serve, environ, folder, options.deadline) as replica:
                    ready = time.monotonic()
                    line |= {"seconds": round(ready - began, 1), **replica.start}
                    if variant == KILL:
                        line |= {"down": down, "back": round(ready - killed_at, 1)}
                    line["compiled"] = full_size.fresh(cached, full_size.kernels(how.kernels))
                    yield line
                    full_size.ask(replica.endpoint, FIRST_REQUESTS, number, min(context, 4096))
                    if options.variants[number + 1 : number + 2] == [KILL]:
                        killed_at, down = time.monotonic(), killed(replica)
        except local_replica.Stopped:
            raise
        except (UserError, OSError) as error:
            yield line | {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:600]}
        before = named


def killed(replica: Started) -> float | None:
    """Kill the engine of a replica; return the seconds until `dsv4 serve` has ended, None where it has not."""
    began = time.monotonic()
    for one in procfs.descendants(replica.process.pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.name().startswith(ENGINE):
                one.kill()
    with contextlib.suppress(TimeoutExpired):
        replica.process.wait(ENDED)
        return round(time.monotonic() - began, 1)
    return None


def settings(variant: str) -> dict[str, str]:
    """Return the variables of a variant."""
    pairs = [] if variant in ("-", "") else [pair.partition("=") for pair in variant.split(",")]
    return {name: value for name, _, value in pairs}


@contextlib.contextmanager
def memory_taken(gib: str | None) -> Iterator[None]:
    """Hold so much memory of the first GPU during the block."""
    if gib is None:
        yield
        return
    with Popen([sys.executable, "-c", _HOLD, gib], stdout=PIPE, text=True) as holder:
        try:
            if not holder.stdout or holder.stdout.readline() != "taken\n":
                raise OSError(f"{gib} GiB of the GPU cannot be taken")
            yield
        finally:
            holder.kill()


if __name__ == "__main__":
    sys.exit(main())
