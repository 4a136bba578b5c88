"""
Start one setup through `dsv4 serve`, measure it, and stop it.

`vllm bench sweep serve` starts servers by itself, one setup after the other: without the gate that proves each, without
the plan between them, and without a log that says why one ended. So only the load is vLLM's (`vllm bench serve`).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bench import command, kernel_prebuild, load, measure, routing
from ..bench.options import LoadMatrix, ServeOptions
from ..client import local_replica
from ..client.errors import RequestFailed
from ..client.local_replica import ReplicaEnded
from ..errors import ConfigError
from .decide import PLAN, Setup, TuneTrial
from .options import FEWEST_REQUESTS
from .other_load import OtherLoad
from .setups import Setups

log = logging.getLogger(__name__)

PROOFS = ("--gate.below-floor", "refuse", "--gate.corrupted", "refuse")
"""A setup whose drafter does not draft, or whose answers are garbled, does not become ready."""
_FOLDERS = "DSV4_PROFILES"


@dataclass(frozen=True)
class Bench:
    """How every setup is started and measured; `weights` is False for dummy ones."""

    setups: Setups
    serve: ServeOptions
    matrix: LoadMatrix
    environ: Mapping[str, str]
    logs: Path
    weights: bool = True


@dataclass(frozen=True)
class Visit:
    """One start: the trial that decides, its rows, and the replica as `/plan` describes it."""

    trial: TuneTrial
    rows: tuple[dict[str, Any], ...] = ()
    replica: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def visit(bench: Bench, setup: Setup, seconds: float, *, first: bool = False) -> Visit:
    """
    Start a setup, measure it and stop it; it has so many seconds to become ready. The `first` one compiles for all.

    A setup that does not start or does not stay right is a failed trial; the plan itself raises UserError then.
    """
    began = time.monotonic()
    try:
        rows, replica = _measured(bench, setup, seconds, first=first)
    except (ReplicaEnded, load.LoadFailed, RequestFailed, ConfigError) as error:
        if setup == PLAN:
            raise
        return Visit(TuneTrial(setup, failed=str(error), seconds=round(time.monotonic() - began, 1)))
    speeds = {row["batch"]: row["output_tokens_per_second"] for row in rows}
    return Visit(TuneTrial(setup, speeds, seconds=round(time.monotonic() - began, 1)), tuple(rows), replica)


def _measured(
    bench: Bench, setup: Setup, seconds: float, *, first: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    serve, environ = _started_as(bench, setup)
    until = time.monotonic() + seconds
    if first:
        _compile(bench, setup, environ, seconds)
    patience = min(until - time.monotonic(), serve.start_seconds)
    if patience <= 0:
        raise ReplicaEnded("compiling kernels took all the time; they are kept: run it again, or raise --hours.")
    with local_replica.replica(serve.argv(), environ, bench.logs, patience) as replica:
        described = replica.endpoint.plan().to_json()
        model, tokenizer = replica.endpoint.models()[0].id, measure.tokenizer_of(described)
        rows, others = [], OtherLoad()
        for shape in bench.matrix.shapes():
            requests = max(FEWEST_REQUESTS, shape.requests)
            row = load.run(dataclasses.replace(shape, requests=requests), replica.endpoint, model, tokenizer, environ)
            log.info(f"  batch {row.batch}: {row.output_tokens_per_second:.2f} tok/s, TTFT p50 {row.ttft_p50:.0f} ms")
            rows.append(row.to_json())
        if sentence := others.sentence():
            log.warning(f"  {sentence}")
    return rows, described


def _compile(bench: Bench, setup: Setup, environ: Mapping[str, str], seconds: float) -> None:
    """Compile kernels in many processes, unless an earlier start filled their cache."""
    resolved = bench.setups.resolution(setup)
    kernel_prebuild.of_plan(resolved.selection, resolved.plan, environ, seconds)


def _started_as(bench: Bench, setup: Setup) -> tuple[ServeOptions, dict[str, str]]:
    """Return how a setup is served, and with which variables."""
    profile, folders = bench.setups.place(setup)
    environ = load.program_in(bench.environ)
    if folders:
        environ[_FOLDERS] = ":".join([*map(str, folders), *filter(None, [environ.get(_FOLDERS)])])
    serve = dataclasses.replace(bench.serve, choices={**bench.serve.choices, "profile": profile})
    if bench.weights:
        return dataclasses.replace(serve, flags=(*serve.flags, *PROOFS)), environ
    resolved = bench.setups.resolution(setup)
    capability = resolved.selection.hardware.get("compute_capability")
    environ = {**routing.variables(capability), **environ}
    serve, _ = command.dummy(resolved.selection, resolved.plan, serve, environ)
    return serve, environ


def starts_folder(folder: Path) -> Path:
    """Return a folder for the logs of the next start."""
    number = len(list(folder.glob("[0-9]*"))) + 1
    return folder / f"{number:03d}-{os.getpid()}"
