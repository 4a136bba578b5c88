"""The full size without weights: it starts, how fast it is, and whether its memory is what `dsv4 fit` counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...bench import command, kernel_prebuild, load, measure, routing
from ...bench.options import LoadMatrix, ServeOptions
from ...client import local_replica
from ...client.local_replica import ReplicaEnded, Started
from ...errors import ConfigError
from ...memory import advice
from ...memory.advice import Fit
from ...resolve import memory_inputs
from ...smoke.outcome import Outcome, failed, inconclusive, passed, skipped
from ..box import Box

LEAST = 120.0
"""Seconds without which no start is tried; a warm one took 118 s (2 x H200, vLLM 0.32.0, 2026-11-22)."""
TOO_SHORT = f"a start takes at least {LEAST:.0f} s, more than is left"
AGAIN = "compiled kernels are kept: run it again, or raise --minutes"
MATRIX = LoadMatrix(inputs=(256,), output=128, requests=2)
_AVAILABLE = re.compile(r"Available KV cache memory: (\d+(?:\.\d+)?) GiB")


def full_size(box: Box) -> Outcome:
    """Every shape, format and kernel of the published model, with random weights and random routing."""
    memory = memory_inputs.estimate(box.selection, box.plan.flags)
    fit = advice.fit(memory) if memory and memory.sized else None
    if why := unfit(box, fit):
        return skipped(why)
    if box.remaining < LEAST:
        return inconclusive(TOO_SHORT, "raise --minutes")
    random = routing.variables(box.selection.hardware.get("compute_capability"))
    environ = {**random, **load.program_in(box.environ)}
    try:
        serve, weights = command.dummy(box.selection, box.plan, box.serve, environ)
    except ConfigError as error:
        return skipped(str(error))
    kernel_prebuild.of_plan(box.selection, box.plan, environ, box.remaining)
    return _started(box, serve, environ, fit, weights)


def _started(box: Box, serve: ServeOptions, environ: Mapping[str, str], fit: Fit | None, weights: str) -> Outcome:
    if box.remaining < LEAST:
        return inconclusive(TOO_SHORT, AGAIN)
    try:
        with local_replica.replica(serve.argv(), environ, local_replica.scratch(), box.remaining) as replica:
            return judged(_rows(box, replica, environ), available_gib(replica.log), fit, replica.start, weights)
    except ReplicaEnded as error:
        if box.remaining <= 0:
            return inconclusive(str(error), AGAIN)
        return failed(str(error), "see the log that it names")


def unfit(box: Box, fit: Fit | None) -> str:
    """Return why the published size cannot be started here; empty if it can."""
    if box.on_cpu:
        return "the published size needs GPUs"
    if fit and not fit.fits:
        return "`dsv4 fit` says that the plan does not fit these GPUs"
    return ""


def _rows(box: Box, replica: Started, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    model = replica.endpoint.models()[0].id
    tokenizer = measure.tokenizer_of(replica.endpoint.plan().to_json())
    batches = tuple(sorted({1, min(box.requests, 16)}))
    matrix = LoadMatrix(batches, MATRIX.inputs, MATRIX.output, MATRIX.requests)
    return [row.to_json() for row in measure.rows(replica.endpoint, model, matrix, tokenizer, environ)]


def available_gib(log: Path) -> float | None:
    """Return the smallest KV cache that a GPU got, by vLLM's log."""
    found = [float(number) for number in _AVAILABLE.findall(local_replica.tail(log))]
    return min(found, default=None)


def judged(rows: list[dict[str, Any]], available: float | None, fit: Fit | None, start: Any, weights: str) -> Outcome:
    """Return the outcome of what was measured; memory outside of what `fit` says is a failure."""
    figures = {
        "rows": rows,
        "weights": weights,
        "start": dict(start),
        "kv_cache_gib": available,
        "kv_cache_gib_by_fit": round(fit.kv_available_gib, 2) if fit else None,
        "uncertainty_gib": round(fit.uncertainty_gib, 2) if fit else None,
    }
    speed = ", ".join(f"{row['output_tokens_per_second']:.0f} for {row['batch']}" for row in rows)
    seen = f"{speed} output tok/s ({weights})"
    if available is None or fit is None:
        return passed(f"{seen}; memory not compared", **figures)
    compared = f"{available:.2f} GiB of KV cache, {fit.kv_available_gib:.2f} ± {fit.uncertainty_gib:.2f} by `dsv4 fit`"
    if abs(available - fit.kv_available_gib) > fit.uncertainty_gib:
        return failed(
            f"{compared}; {seen}",
            "another process may use the GPUs (`nvidia-smi`); else set overhead-gib in the hardware's file",
            **figures,
        )
    return passed(f"{seen}; {compared}", **figures)
