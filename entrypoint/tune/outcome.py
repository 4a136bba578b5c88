"""What a run of `dsv4 tune` found, as its result file holds it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ..bench import measure
from . import decide
from .candidates import TuneCandidate
from .decide import PLAN, TuneStanding
from .kept import Kept
from .options import TuneRequest
from .setups import Setups

_MEANS = ("output_tokens_per_second", "tpot_p50", "tpot_p99", "ttft_p50", "ttft_p99", "acceptance")

WINS, SLOWER, NO_FASTER, NOISE, FAILED = "wins", "slower", "no faster", "within the noise", "failed"
UNDECIDED, WAITS = "not decided", "not tried"


def body(
    request: TuneRequest, setups: Setups, left_out: Mapping[str, str], starts: Kept, now: TuneStanding
) -> dict[str, Any]:
    """Return the result of a run."""
    trials, best = starts.trials, now.best
    replica = starts.replica(PLAN)
    weights = measure.weights_of(replica)
    noise = decide.noise(trials)
    against = decide.compare(trials, PLAN, best) if best else None
    return {
        "subject": f"{measure.subject(replica, weights)}-{request.name}",
        "weights": weights,
        "load": measure.LOAD,
        "replica": dict(replica),
        "hours": round(request.seconds / 3600, 4),
        "spent_seconds": round(starts.spent, 1),
        "finished": now.next is None,
        "noise": {"deviation": round(noise.deviation, 5), "freedom": noise.freedom},
        "candidates": [
            {**described(one), **verdict(one.name, starts, now)} for one in setups.candidates.values()
        ],
        "left_out": [{"name": name, "because": why} for name, why in left_out.items()],
        "best": list(best),
        "changes": setups.changes(best),
        "gain": round(against.gain, 4) if against else 0.0,
        "threshold": round(against.threshold, 4) if against else None,
        "before": means(starts.rows(PLAN)),
        "after": means(starts.rows(best)),
        "starts": [
            {"setup": list(t.setup), "speeds": dict(t.speeds), "failed": t.failed, "seconds": t.seconds} for t in trials
        ],
    }  # fmt: skip


def described(one: TuneCandidate) -> dict[str, Any]:
    """Return a candidate as it was proposed."""
    return {"name": one.name, "changes": dict(one.changes), "because": one.because, "predicted": one.gain}


def verdict(name: str, starts: Kept, now: TuneStanding) -> dict[str, Any]:
    """Return what became of a candidate: its gain over the plan at its first start, and whether it won."""
    trials = starts.trials
    if failed := decide.failure(trials, name):
        return {"verdict": FAILED, "why": failed}
    if not (alone := decide.of(trials, (name,))):
        return {"verdict": WAITS}
    found = decide.compare(trials, PLAN, (name,))
    figures = {"gain": round(found.gain, 4), "starts": len(alone)}
    if name in now.best:
        return {"verdict": WINS, **figures}
    if found.slower:
        return {"verdict": SLOWER, "batches": list(found.slower), **figures}
    if found.gain <= 0:
        return {"verdict": NO_FASTER, **figures}
    waiting = now.next is not None and len(alone) <= decide.REPEATS and name in decide.promising([name], trials)
    return {"verdict": UNDECIDED if waiting else NOISE, **figures}


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each batch size, with the mean of its figures over starts."""
    batches = dict.fromkeys(row["batch"] for row in rows)
    return [_mean([row for row in rows if row["batch"] == batch]) for batch in batches]


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = dict(rows[0])
    for name in _MEANS:
        values = [row[name] for row in rows if row[name] is not None]
        found[name] = round(fmean(values), 4) if values else None
    return {**found, "starts": len(rows)}
