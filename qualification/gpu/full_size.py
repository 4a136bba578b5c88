"""What the jobs `pack` and `restart` have in common: a plan at full size without weights, its kernels, its requests."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsv4_serve.entrypoint.bench import event_loop, kernel_prebuild, load, routing
from dsv4_serve.entrypoint.bench.kernel_prebuild import PrebuiltKernels
from dsv4_serve.entrypoint.bench.kernel_products import Gemm
from dsv4_serve.entrypoint.bench.without_weights import SIZES
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from dsv4_serve.entrypoint.client.vllm import VllmClient
from dsv4_serve.entrypoint.supervisor import compiled, kernel_cache
from qualification.gpu import speed, this_host, variants
from qualification.gpu.speed import Planned

PLACES = (1, 4, 16)
"""Requests at the same time; each number serves a third of all."""
SHORT, LONG, MOST = 16_384, 131_072, 64
"""Tokens of all prompts but the last ones, of those, and of an answer."""
FEW_LONG = 50
"""One prompt of so many is a long one."""
VOCAB = 64_000
"""Ids that one GPU's share of two has too."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what names a plan, and when to end."""
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--profile", default="524k")
    parser.add_argument("--model", default="w4a16")
    parser.add_argument("--share", type=int, default=1, help="serve one GPU's share of so many on one GPU")
    parser.add_argument("--tp", type=int, help="GPUs (default: 2, or 1 for a share)")
    parser.add_argument(
        "--deadline", type=float, default=3600, help="seconds for everything; what was measured is kept"
    )


def planned(options: argparse.Namespace, environ: Mapping[str, str], flags: Sequence[str] = ()) -> Planned:
    """Write the folder without weights; return how it is served, with experts routed as `dsv4 serve` does."""
    share = {"tp": options.tp or (1 if options.share > 1 else 2), "share": options.share}
    one = {"model": options.model, "profile": options.profile, "skip": ["busy-gpu"], "flags": list(flags)}
    how = speed.planned({**variants.DEFAULTS, **share, **one}, load.program_in(environ))
    kept = {name: value for name, value in how.environ.items() if name != routing.VARIABLE}
    return replace(how, environ=kept)


def prebuilt(
    options: argparse.Namespace, how: Planned, cache: Path | None = None
) -> tuple[list[Gemm], PrebuiltKernels]:
    """Compile kernels in many processes as `dsv4 warm` does it; return the products, and what it took."""
    whole = SIZES[str(how.selection.model.get("architecture"))]
    sizes = speed.share(whole, options.share) if options.share > 1 else whole
    products = kernel_prebuild.products_of(how.selection, how.plan, sizes)
    tokens, caches = kernel_prebuild.steps(how.plan), kernel_cache.variables(cache or how.kernels)
    return products, kernel_prebuild.compile_all(products, tokens, {**how.environ, **caches}, os.cpu_count() or 1)


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Return on what it is measured, and what."""
    shape = {"profile": options.profile, "model": options.model, "tp": options.tp, "share": options.share}
    return {**this_host.facts(), "cores": os.cpu_count(), **shape}


def caches_in(home: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment whose caches all lie in one folder, so that no compiler finds what it keeps elsewhere."""
    home.mkdir(parents=True, exist_ok=True)
    return {**environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "DSV4_CACHE": str(home / "dsv4")}


Kernels = dict[str, tuple[int, int]]
"""The files of a cache folder by path: their times and sizes."""


def kernels(folder: Path) -> Kernels:
    """Return every file that the product counts as a kernel."""
    found = {}
    for _, path in compiled.paths(folder):
        with suppress(FileNotFoundError):  # a compiler works meanwhile
            status = os.lstat(path)
            found[os.path.relpath(path, folder)] = (status.st_mtime_ns, status.st_size)
    return found


def fresh(before: Kernels, after: Kernels) -> dict[str, Any]:
    """Return how many files were added by compiler, their names, and those that were written again."""
    added = sorted(after.keys() - before.keys())
    again = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    by = Counter(name.partition("/")[0] for name in added)
    return {"files": len(added), "by": dict(by), "names": added[:60], "again": again[:60]}


def timeline(before: Kernels, after: Kernels) -> str:
    """Return what was added, by the time when it was written: seconds since the epoch, bytes, path."""
    added = sorted((*after[name], name) for name in after.keys() - before.keys())
    return "".join(f"{written / 1e9:.3f} {size} {name}\n" for written, size, name in added)


def lengths(requests: int, seed: int, context: int) -> list[int]:
    """Return the prompt lengths of so many requests: as many short ones as long ones by order of magnitude."""
    chance = random.Random(seed)
    long = requests // FEW_LONG
    spans = [(1, SHORT)] * (requests - long) + [(SHORT, LONG)] * long
    drawn = [round(low * (high / low) ** chance.random()) for low, high in spans]
    chance.shuffle(drawn)
    return [min(length, context - MOST - 8) for length in drawn]


def ask(where: Endpoint, requests: int, seed: int, context: int) -> dict[str, Any]:
    """Send so many requests of mixed lengths, few or many at a time; return how long they took."""
    prompts = lengths(requests, seed, context)
    began = time.monotonic()
    took = event_loop.run(_ask(where, prompts, seed))
    slowest = sorted(zip(took, prompts, strict=True), reverse=True)[:5]
    return {
        "requests": len(took),
        "tokens": sum(prompts),
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "slowest": [{"seconds": round(seconds, 2), "tokens": tokens} for seconds, tokens in slowest],
    }


async def _ask(where: Endpoint, prompts: Sequence[int], seed: int) -> list[float]:
    client, took = VllmClient(where.url, where.key), [0.0] * len(prompts)

    async def one(number: int, places: asyncio.Semaphore) -> None:
        chance = random.Random(f"{seed} {number}")
        ids = [chance.randrange(10, VOCAB) for _ in range(prompts[number])]
        async with places:
            began = time.monotonic()
            await client.complete(ids, 1 + chance.randrange(MOST))
            took[number] = time.monotonic() - began

    try:
        for turn, places in enumerate(PLACES):
            room = asyncio.Semaphore(places)
            await asyncio.gather(*(one(number, room) for number in range(turn, len(prompts), len(PLACES))))
    finally:
        await client.close()
    return took


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `local_replica.Stopped` after so many seconds, which stops a replica too."""
    before = signal.signal(signal.SIGALRM, speed.stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Kept:
    """What was measured, written to a file after every step."""

    def __init__(self, file: Path, **begun: Any) -> None:
        self.file, self.found = file, begun
        self.add()

    def add(self, **more: Any) -> None:
        """Add to it and write it; the last line of the log says what came."""
        self.found.update(more)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(self.found, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self.file)
        if more:
            print(json.dumps(more)[:3000], flush=True)
