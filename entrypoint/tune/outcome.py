"""What a run of `dsv4 tune` found, as its result file holds it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, geometric_mean
from typing import Any

from ..bench import measure
from . import decide, forecast
from .candidates import TuneCandidate
from .decide import PLAN, Clash, Setup, SetupComparison, TuneStanding, TuneTrial
from .kept import Kept
from .options import TuneRequest
from .setups import Setups

_SPEED = "output_tokens_per_second"
_MEANS = ("tpot_p50", "tpot_p99", "ttft_p50", "ttft_p99", "acceptance")

WINS, SLOWER, NO_FASTER, NOISE, FAILED = "wins", "slower", "no faster", "within the noise", "failed"
UNDECIDED, WAITS = "not decided", "not tried"
BEHIND = "behind the winner"
"""It looked faster than the plan, but a winner cannot be combined with it, or gains nothing by it."""


def body(
    request: TuneRequest, setups: Setups, left_out: Mapping[str, str], starts: Kept, now: TuneStanding
) -> dict[str, Any]:
    """Return the result of a run."""
    trials, best = starts.trials, now.best
    replica = starts.replica(PLAN)
    weights = measure.weights_of(replica)
    noise = decide.noise(trials)
    names, finished = list(setups.candidates), now.next is None
    enough = None if finished else forecast.hours(names, trials, setups.clash, request.seconds)
    against = decide.compare(trials, PLAN, best) if best else None
    return {
        "subject": f"{measure.subject(replica, weights)}-{request.name}",
        "weights": weights,
        "load": measure.LOAD,
        "replica": dict(replica),
        "hours": round(request.seconds / 3600, 4),
        "spent_seconds": round(starts.spent, 1),
        "finished": finished,
        "enough_hours": enough,
        "noise": {"deviation": round(noise.deviation, 5), "freedom": noise.freedom},
        "candidates": [
            {**described(one), **verdict(one.name, starts, now, setups.clash)} for one in setups.candidates.values()
        ],
        "left_out": [{"name": name, "because": why} for name, why in left_out.items()],
        "best": list(best),
        "changes": setups.changes(best),
        "gain": round(against.gain, 4) if against else 0.0,
        "threshold": round(against.threshold, 4) if against else None,
        "before": means(deciding(starts, PLAN)),
        "after": means(deciding(starts, best)),
        "starts": [
            {"setup": list(t.setup), "speeds": dict(t.speeds), "failed": t.failed, "seconds": t.seconds} for t in trials
        ],
    }  # fmt: skip


def described(one: TuneCandidate) -> dict[str, Any]:
    """Return a candidate as it was proposed."""
    return {"name": one.name, "changes": dict(one.changes), "because": one.because, "predicted": one.gain}


def deciding(starts: Kept, setup: Setup) -> list[Mapping[str, Any]]:
    """Return the rows of the starts that a setup is compared by."""
    chosen = decide.deciding(starts.trials, setup)
    return [row for visit in starts.visits if any(visit.trial is one for one in chosen) for row in visit.rows]


def verdict(name: str, starts: Kept, now: TuneStanding, clash: Clash) -> dict[str, Any]:
    """Return what became of a candidate: its gain over the plan, and whether it won or may still win."""
    trials = starts.trials
    if failed := decide.failure(trials, name):
        return {"verdict": FAILED, "why": failed}
    if not (alone := decide.of(trials, (name,))):
        return {"verdict": WAITS}
    found = decide.compare(trials, PLAN, (name,))
    word = _word(name, trials, now, clash, found)
    batches = {"batches": list(found.slower)} if word == SLOWER else {}
    return {"verdict": word, **batches, "gain": round(found.gain, 4), "starts": len(alone)}


def _word(
    name: str, trials: Sequence[TuneTrial], now: TuneStanding, clash: Clash, against_plan: SetupComparison
) -> str:
    if name in now.best:
        return WINS
    if name in now.undecided:
        return UNDECIDED
    if against_plan.slower:
        return SLOWER
    if against_plan.gain <= 0:
        return NO_FASTER
    clashes = any(clash(name, other) for other in now.best)
    return BEHIND if against_plan.wins or (clashes and decide.promising([name], trials)) else NOISE


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each batch size, with the mean of its figures over starts: the geometric one of speeds."""
    batches = dict.fromkeys(row["batch"] for row in rows)
    return [_mean([row for row in rows if row["batch"] == batch]) for batch in batches]


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = dict(rows[0])
    found[_SPEED] = round(geometric_mean(row[_SPEED] for row in rows), 4)
    for name in _MEANS:
        values = [row[name] for row in rows if row[name] is not None]
        found[name] = round(fmean(values), 4) if values else None
    return {**found, "starts": len(rows)}
