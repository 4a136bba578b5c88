"""Run `dsv4 bench`: measure a running replica, or start one of our own without weights."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import plain_file, results, shared_result
from ..client import local_replica
from ..client.endpoint import Endpoint
from ..errors import ConfigError, HostError, NotFound
from ..fingerprint import fingerprint
from ..plan import Plan
from ..resolve.select import Selection
from ..supervisor import kernel_cache
from . import load, measure, other_engine, plot, rounds, routing
from .load import Tokenizer
from .measure import Subject
from .options import BenchRequest, LoadMatrix, ServeOptions

if TYPE_CHECKING:
    from ...demo.v4_weights import Dims  # with numpy, which comes with vLLM

log = logging.getLogger(__name__)


def bench(
    replica: AbstractContextManager[Endpoint], request: BenchRequest, environ: Mapping[str, str]
) -> list[dict[str, Any]]:
    """
    Measure a replica, write the result, and return it; raise UserError.

    With another engine, both are measured in turn, and its result comes first.
    """
    environ = load.program_in(environ)
    results.check_writable(request.out, "bench")
    if request.plot:
        _write(request.plot, "a", "")  # fails now rather than after the measurement
    shared_result.check_writable(request.share)
    engine = None
    if request.engine_url:
        engine = other_engine.at(
            request.engine_url, request.engine_key_file, request.engine_model, request.engine_hardware
        )
    with local_replica.stops_raise():
        others = [other_engine.subject(engine)] if engine else []
        with replica as endpoint:
            subjects = [*others, measure.replica_subject(endpoint)]
            named = Tokenizer(request.tokenizer) if request.tokenizer else None
            tokenizer = named or measure.tokenizer_of(subjects[-1].about["replica"])
            paths = measure.measure(subjects, _within(request.matrix, subjects), environ, tokenizer, request.out)
    found = [results.read_one(path) for path in paths]
    if request.plot:
        _write(request.plot, "w", plot.svg(found))
    if request.share:
        share(request.share, "bench", found[-1], rows=rounds.means(found[-1]["rows"]))
    return found


def _within(matrix: LoadMatrix, subjects: Sequence[Subject]) -> LoadMatrix:
    """Return the matrix with the lengths for the smallest of the served contexts."""
    for subject in sorted(subjects, key=lambda one: one.context or 0):
        matrix = matrix.within(subject.context, subject.endpoint.url)
    return matrix


def share(path: Path, kind: str, result: Mapping[str, Any], **parts: Any) -> None:
    """Write what can be shared of a result; raise UserError without a plan."""
    if not result["replica"].get("settings"):
        raise ConfigError(f"{path} was not written: the replica's plan is unknown; name its health server (--health).")
    day = datetime.fromisoformat(result["date"]).date()
    shared_result.write(path, shared_result.shared(kind, result["replica"], result["weights"], day, **parts))
    log.info(f"{path} can be shared: add your name as `who` (docs/results/community.md)")


@contextlib.contextmanager
def without_weights(
    selection: Selection, plan: Plan, serve: ServeOptions, environ: Mapping[str, str]
) -> Iterator[Endpoint]:
    """Serve a plan at its real size without weights, and yield the replica's endpoint."""
    environ = {**routing.variables(selection.hardware.get("compute_capability")), **load.program_in(environ)}
    serve, weights = dummy(selection, plan, serve, environ)
    log.info(f"{weights}; the draft gate and the corruption canary only warn, as random weights pass neither")
    with local_replica.replica(serve.argv(), environ, local_replica.scratch(), serve.start_seconds) as replica:
        yield replica.endpoint


def dummy(
    selection: Selection, plan: Plan, serve: ServeOptions, environ: Mapping[str, str], sizes: Dims | None = None
) -> tuple[ServeOptions, str]:
    """
    Write the folder that replaces the weights; return how it is served, and a description of the weights.

    `plan` is what `serve` resolves to. `sizes`, if given, replace the published ones and get a folder of their own,
    since another replica may be reading the published one.
    """
    try:
        from . import without_weights as folders
    except ModuleNotFoundError as error:
        raise NotFound(f"--without-weights needs {error.name}, which comes with vLLM; install vLLM here.") from None

    model = selection.model
    layout = folders.layout_of(model)
    name = f"{model.name}-{fingerprint(sizes)}" if sizes else model.name
    folder = kernel_cache.root(environ) / "without-weights" / name
    rates = folders.acceptance_rates(serve.acceptance, plan.draft_tokens)
    try:
        folders.write(folder, str(model.get("architecture")), layout, sizes)
    except OSError as error:
        raise HostError(f"cannot write {folder} ({error.strerror}); set DSV4_CACHE.") from None
    choices = {**serve.choices, "model": f"{model.name}={folder}"}
    flags = (*serve.flags, *folders.flags(rates))
    return replace(serve, choices=choices, flags=flags), measure.described(rates, environ)


def _write(path: Path, mode: str, text: str) -> None:
    try:
        plain_file.write_text(path, text, append=mode == "a")
    except OSError as error:
        raise HostError(f"cannot write {path} ({error.strerror}); choose another file with --plot.") from None
