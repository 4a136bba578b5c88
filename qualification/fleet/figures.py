"""Figures from what was seen of a fleet."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from qualification.fleet.clients import SentRequest
from qualification.fleet.scenario import Fault, Seen
from qualification.fleet.serve_fleet import SAMPLE, address


def figures(seen: Seen) -> dict[str, Any]:
    """Return the row of one run; times in seconds or, where the name says so, milliseconds."""
    return {
        "replicas": seen.replicas,
        "front": seen.front,
        "changes": list(seen.changes),
        "sessions": seen.sessions,
        "requests_per_second": round(seen.rate, 2),
        "share_of_capacity": round(seen.share, 2),
        "requests": len(seen.requests),
        "up_after": round(seen.up_after, 1),
        "steady": steady(seen),
        "faults": [fault(seen, one) for one in seen.faults],
    }


def steady(seen: Seen) -> dict[str, Any]:
    """Return what was seen while every replica was well."""
    began, ended = seen.steady
    sent = [one for one in seen.requests if began <= one.sent < ended]
    numbers = {one.number for one in sent}
    forward = [late for number, _, _, late in seen.log["arrivals"] if number in numbers]
    back = [late for one in sent for late in one.late_chunks]
    first = [one.first - one.sent for one in sent if one.first]
    checks = sum(began <= at < ended for at, _ in seen.log["checks"])
    loads = [loads for at, loads in seen.log["loads"] if began <= at < ended]
    lags = [lag for at, lag in seen.lags if began <= at < ended]
    return {
        "seconds": round(ended - began, 1),
        "requests": len(sent),
        "lost": sum(bool(one.error) for one in seen.requests if began <= one.ended < ended),
        "running_per_replica": round(statistics.mean(statistics.mean(one) for one in loads), 2),
        "imbalance": round(statistics.mean(max(one) / statistics.mean(one) for one in loads if sum(one)), 2),
        "most_on_one": max(map(max, loads)),
        "waiting_share": round(
            statistics.mean(sum(max(0, n - 16) for n in one) / max(1, sum(one)) for one in loads), 3
        ),
        "first_token_ms": spread(first),
        "request_ms": spread(forward),
        "chunk_ms": spread(back),
        "balancer_cores": round(seen.cpu, 3),
        "balancer_mib": round(seen.memory / 2**20),
        "checks_per_second": round(checks / (ended - began), 1),
        "renders_per_second": round(sum(began <= at < ended for at, _ in seen.log["renders"]) / (ended - began), 1),
        "lag_ms": spread(lags),
        "replica_lag_ms": spread(
            after - before - SAMPLE for before, after in pairwise(at for at, _ in seen.log["loads"])
        ),
    }


def spread(seconds: Iterable[float]) -> dict[str, float]:
    """Return median and 99th percentile in milliseconds."""
    values = sorted(seconds)
    if not values:
        return {}
    at = {"p50": 0.5, "p99": 0.99}
    return {name: round(values[int(share * (len(values) - 1))] * 1e3, 2) for name, share in at.items()}


def fault(seen: Seen, one: Fault) -> dict[str, Any]:
    """Return what one fault cost, and how soon it was seen."""
    hurt = address(one.replica)
    arrivals = [(number, at, replica) for number, at, replica, _ in seen.log["arrivals"]]
    here = [at for _, at, replica in arrivals if replica == one.replica]
    new = [at for at in here if one.began < at <= one.ended]
    back = [at for at in here if at > one.ended]
    lost = [request for request in seen.requests if request.error and one.began < request.ended <= one.settled]
    places: dict[int, list[tuple[float, int]]] = {}
    for number, at, replica in arrivals:
        places.setdefault(number, []).append((at, replica))
    others = {
        other.replica
        for other in seen.faults
        if other.replica != one.replica and other.began < one.settled and one.began < other.settled
    }
    kinds = Counter(lost_how(request, places.get(request.number, []), one, others) for request in lost)
    outs = [at for at, up in seen.ups if at > one.began and hurt not in up]
    again = [at for at, up in seen.ups if at > one.ended and hurt in up]
    everyone = sum(one.began < at <= one.ended for _, at, _ in arrivals)
    return {
        "kind": one.kind,
        "requests": sum(one.began < request.sent <= one.settled for request in seen.requests),
        "running_there": at_once(seen, one),
        "lost_that_ran_there": kinds["ran there"],
        "lost_sent_there_later": kinds["sent there later"],
        "lost_elsewhere": kinds["elsewhere"],
        "errors": dict(Counter(request.error[:60] for request in lost).most_common(3)),
        "sent_twice": sum(len(found) > 1 for n, found in places.items() if one.began < found[-1][0] <= one.settled),
        "new_there": len(new),
        "share_of_mean": round(len(new) * seen.replicas / everyone, 2) if everyone else None,
        "last_new_after": round(max(new) - one.began, 1) if new else 0.0,
        "out_after": round(outs[0] - one.began, 1) if outs and outs[0] < one.ended + 1 else None,
        "back_after": round(again[0] - one.ended, 1) if again and outs else None,
        "first_request_after": round(back[0] - one.ended, 1) if back else None,
    }


def lost_how(request: SentRequest, places: list[tuple[float, int]], one: Fault, others: set[int]) -> str:
    """Tell whether a lost request ran on the replica when it was hurt, was sent there later, or neither.

    What was lost on one of `others`, replicas that were hurt in the same time, counts for them.
    """
    there = [at for at, replica in places if replica == one.replica]
    if not there:
        return "another fault" if others & {replica for _, replica in places} else "elsewhere"
    return "ran there" if there[0] <= one.began else "sent there later"


def at_once(seen: Seen, one: Fault) -> int:
    """Return how many requests the replica had at the last look before it was hurt."""
    before = [loads[one.replica] for at, loads in seen.log["loads"] if at <= one.began]
    return before[-1] if before else 0
