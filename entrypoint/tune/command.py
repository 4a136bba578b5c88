"""`dsv4 tune` from its request to its profile."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import results
from ..bench.command import share
from ..bench.options import ServeOptions
from ..catalog.catalog import Catalog
from ..request import Request
from ..resolve import kernels
from ..resolve.resolution import Resolution
from . import candidates, kept, outcome, predict, profile_file, qualified, run
from .candidates import TuneCandidate
from .measure import Bench
from .options import TuneRequest
from .setups import Resolve, Setups, allowed, named


@dataclass(frozen=True)
class TuneContext:
    """What is tuned: a resolved plan, the request that it comes from, how other profiles resolve, and the machine."""

    plan: Resolution
    request: Request
    resolve: Resolve
    machine: Mapping[str, Any]


@dataclass(frozen=True)
class Proposal:
    """Candidates that can be tried, the most promising first, and why others cannot."""

    setups: Setups
    left_out: Mapping[str, str]

    @property
    def candidates(self) -> list[TuneCandidate]:
        """The candidates in order."""
        return list(self.setups.candidates.values())


def proposal(context: TuneContext, request: TuneRequest, acceptance: Sequence[float] | None) -> Proposal:
    """
    Return what can be tried around a plan.

    Without weights the number of draft tokens is only tried where a rate of acceptance is stated, which decides it.
    """
    plan, assumed = context.plan.plan, (acceptance or (predict.ACCEPTANCE,))[0]
    found = named(candidates.propose(context.plan.selection, plan, request.matrix.batches, assumed), request.kinds)
    return settled(context, request, found, acceptance)


def settled(
    context: TuneContext,
    request: TuneRequest,
    found: Sequence[TuneCandidate],
    acceptance: Sequence[float] | None = None,
) -> Proposal:
    """Return these candidates, and why some of them cannot be tried."""
    profile, folder = str(context.plan.plan.choices["profile"].value), Path(tempfile.mkdtemp(prefix="dsv4-tune-"))
    setups = Setups(profile, context.resolve, {one.name: one for one in found}, folder)
    why = {one.name: _why_not(setups, one, context, request, acceptance) for one in found}
    tried = {one.name: one for one in found if not why[one.name]}
    return Proposal(Setups(profile, context.resolve, tried, folder), {name: text for name, text in why.items() if text})


def _why_not(
    setups: Setups, one: TuneCandidate, context: TuneContext, request: TuneRequest, acceptance: Sequence[float] | None
) -> str:
    if one.gain is not None and one.gain < candidates.WORST:
        return f"{one.because}; it is predicted to lose {-one.gain:.0%}"
    if request.without_weights and one.kind == "drafts" and not acceptance:
        return "without weights nothing shows how many drafts are accepted; state it with --acceptance"
    if (reason := allowed(setups, one, context.request, context.plan)) or one.kind != candidates.EXPERTS:
        return reason
    model = context.plan.selection.model.name
    backends = qualified.here(request.out, model, context.machine)
    return qualified.why_not(str(one.changes[kernels.MOE]), backends, setups.profile, model)


def described(one: TuneCandidate) -> dict[str, Any]:
    """Return a candidate for a program."""
    return {**outcome.described(one), "kind": one.kind}


def tune(
    found: Proposal, context: TuneContext, request: TuneRequest, serve: ServeOptions, environ: Mapping[str, str]
) -> dict[str, Any]:
    """Measure, write the result, and return it; raise UserError."""
    names = list(found.setups.candidates)
    starts = kept.opened(run.file_of(request, run.key(context.plan.plan, request, context.machine)))
    logs = Path(tempfile.mkdtemp(prefix="dsv4-tune-logs-"))
    bench = Bench(found.setups, serve, request.matrix, environ, logs, not request.without_weights)
    now = run.measured(bench, request, names, starts)
    body = outcome.body(request, found.setups, found.left_out, starts, now)
    return results.read_one(results.write(request.out, "tune", body))


def finished(
    result: Mapping[str, Any], request: TuneRequest, profile: str, folders: Sequence[Path], catalog: Catalog
) -> dict[str, Any]:
    """Write the profile that won, if any, and what can be shared; return the result with the profile's file."""
    path = ""
    if result["best"]:
        file = profile_file.check_place(request.name, folders, catalog)
        profile_file.write(file, profile_file.text(profile, result, result["file"]))
        path = str(file)
    if request.share:
        share(request.share, "tune", result, rows=result["after"], changes=result["changes"])
    return {**result, "profile": path}
