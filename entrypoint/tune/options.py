"""Turn the options of `dsv4 tune` into a request."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from .. import replica
from ..bench.options import LoadMatrix
from ..errors import UsageError, nearest
from ..plan import Plan
from .candidates import KINDS

LATENCY, THROUGHPUT = "latency", "throughput"
MOST = 64
"""Concurrent requests that are measured where none are named: more take long."""
FEWEST_REQUESTS = 8
"""Requests of one row; with fewer a single slow one decides."""


@dataclass(frozen=True)
class TuneRequest:
    """What is tuned for (`matrix`), for how many seconds, under which name it is kept, and where results go."""

    matrix: LoadMatrix
    seconds: float
    name: str
    out: Path
    kinds: tuple[str, ...] = ()
    share: Path | None = None
    without_weights: bool = False


def tune_request(options: argparse.Namespace, plan: Plan) -> TuneRequest:
    """Return the request of a command line for a plan; raise UsageError for an impossible number."""
    for option, value in (("--input", options.input), ("--output", options.output)):
        if value < 1:
            raise UsageError(f"{option} {value}: must be 1 or more.")
    if options.output < 2:
        raise UsageError("--output 1: must be 2 or more, as the first token says nothing about drafting.")
    if options.batch and options.aim:
        raise UsageError("--for names what --batch decides; leave one of them out.")
    batches = tuple(sorted(set(options.batch or _batches(options.aim, plan))))
    if batches[0] < 1:
        raise UsageError(f"--batch {batches[0]}: must be 1 or more.")
    if (most := replica.sequences(plan)) and batches[-1] > most:
        raise UsageError(f"--batch {batches[-1]}: the plan runs {most} requests at once; raise it with --max-num-seqs.")
    if unknown := [kind for kind in options.only if kind not in KINDS]:
        raise UsageError(f"--only {unknown[0]}{nearest(unknown[0], KINDS)}: use {', '.join(KINDS)}.")
    profile = str(plan.choices["profile"].value)
    return TuneRequest(
        LoadMatrix(batches, (options.input,), options.output, options.requests_per_batch),
        options.hours * 3600,
        f"{profile}-tuned" if options.name is None else options.name,
        options.out,
        tuple(options.only),
        Path(options.share) if options.share else None,
        options.without_weights,
    )


def _batches(aim: str | None, plan: Plan) -> list[int]:
    """Return the batch sizes of an aim: one request, as many as the plan takes, or both."""
    most = min(replica.sequences(plan) or MOST, MOST)
    return {LATENCY: [1], THROUGHPUT: [most]}.get(aim or "", [1, most])
