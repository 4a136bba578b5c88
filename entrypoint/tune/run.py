"""Run `dsv4 tune`: start one setup after the other until the winner is known or the time is over."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import folder_lock, plain_file, shared_result
from ..client import local_replica
from ..errors import HostError
from ..fingerprint import fingerprint
from ..plan import Plan
from ..supervisor import provenance
from . import decide, forecast, measure, rightness
from .decide import PLAN, Setup, TuneStanding
from .forecast import TuneForecast
from .kept import Kept
from .measure import Bench, Visit
from .options import TuneRequest

log = logging.getLogger(__name__)

FOLDER = "tune"


def key(plan: Plan, request: TuneRequest, machine: Mapping[str, Any]) -> str:
    """
    Return the hash of everything that a kept start depends on: plan, load, code, GPUs, weights.

    The list of candidates is none of it: it grows when `dsv4 qualify` passes with another MoE backend.
    """
    choices = {name: setting.value for name, setting in plan.choices.items()}
    digest = shared_result.digest({**plan.to_json(), "choices": choices})
    code = [provenance.versions(), provenance.patches().get("patches", [])]
    weights = [choices.get("model-name"), plan.value("model"), request.without_weights]
    return fingerprint(digest, dataclasses.asdict(request.matrix), code, machine, weights)


def file_of(request: TuneRequest, key: str) -> Path:
    """Return the file that keeps the starts of a run."""
    return request.out / FOLDER / f"{request.name}-{key}.jsonl"


def measured(bench: Bench, request: TuneRequest, names: Sequence[str], starts: Kept) -> TuneStanding:
    """Measure until nothing is left or the time is over; return where the run stands. Raise UserError."""
    check_writable(starts.path)
    if starts.visits:
        counted = "1 start is" if len(starts.visits) == 1 else f"{len(starts.visits)} starts are"
        log.info(f"{counted} kept in {starts.path}; continuing from there")
    with folder_lock.locked(starts.path.parent, "`dsv4 tune`"), local_replica.stops_raise():
        warned = False
        while True:
            clash = bench.setups.clash
            now = decide.standing(names, starts.trials, clash, starts.spent / request.seconds)
            further = forecast.until_decided(names, starts.trials, clash, request.seconds)
            remaining = request.seconds - starts.spent
            if now.next is None or (starts.visits and remaining < further.fewest):
                return now
            if further.seconds > remaining and not warned:
                hours = forecast.hours(names, starts.trials, clash, request.seconds)
                log.warning(
                    f"too little time is left for a decision, which takes {further}; starts are kept, "
                    f"so the same command with --hours {hours:.1f} continues after them"
                )
                warned = True
            visit = _visit(bench, now.next, starts, remaining, further)
            if visit.trial.failed and visit.trial.seconds >= remaining:
                return now  # the time was over before it could be ready, which says nothing about it
            starts.add(visit)


def check_writable(path: Path) -> None:
    """Raise HostError where nothing could be kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        plain_file.write_text(path, "", append=True)
    except OSError as error:
        raise HostError(f"cannot write {path} ({error.strerror}); choose another folder with --out.") from None
    if not path.stat().st_size:
        path.unlink()


def _visit(bench: Bench, setup: Setup, starts: Kept, remaining: float, further: TuneForecast) -> Visit:
    number = len(starts.visits) + 1
    log.info(f"start {number}: {shown(setup)} ({remaining / 60:.0f} minutes are left; a decision takes {further})")
    one = dataclasses.replace(bench, logs=measure.starts_folder(bench.logs))
    visit = measure.visit(one, setup, remaining, first=number == 1)
    if setup != PLAN and not visit.trial.failed and bench.weights:
        fell = rightness.drafts_less(starts.rows(PLAN), visit.rows)
        visit = dataclasses.replace(visit, trial=dataclasses.replace(visit.trial, failed=fell))
    if visit.trial.failed:
        log.info(f"  it does not count: {visit.trial.failed}")
    return visit


def shown(setup: Setup) -> str:
    """Return a setup for people."""
    return " + ".join(setup) or "the plan"
