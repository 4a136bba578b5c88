"""What one replica says about itself in its two `/metrics`, and what happened between two readings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from ..client import counters
from ..client.counters import Counters

_TTFT = re.compile(r'^vllm:time_to_first_token_seconds_bucket\{[^\n]*le="([^"]+)"[^\n]*\} (\S+)', re.MULTILINE)
_OURS = re.compile(r"^(dsv4_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_CORRUPTION = 'check="corruption",group="ready"'
"""The check of the corruption canary; labels stand in the order of the alphabet."""


@dataclass(frozen=True)
class ReplicaReading:
    """One replica at one time; None is unknown."""

    counters: Counters = field(default_factory=Counters)
    ttft: Mapping[float, int] | None = None
    """Requests whose first token came within so many seconds, infinity included."""
    starts: int | None = None
    ready: bool | None = None
    answers_sound: bool | None = None
    degraded: bool = False
    collapsed: bool = False
    floors: tuple[float, ...] = ()
    """The lowest share of drafts accepted up to each position."""


@dataclass(frozen=True)
class Tally:
    """What several replicas did in a time; `requests` and `failed` are as the balancer counted them."""

    replicas: int = 0
    requests: int = 0
    failed: int = 0
    drafts: int = 0
    accepted_at: tuple[int, ...] = ()
    speculates: bool = False
    ttft: Mapping[float, int] | None = None

    def shares(self) -> tuple[float, ...]:
        """Return the share of drafts accepted up to each position."""
        return tuple(count / self.drafts for count in self.accepted_at) if self.drafts else ()


def read(of_vllm: str, ours: str) -> ReplicaReading:
    """Return a reading from the text of vLLM's `/metrics` and of the health server's; raise ValueError for neither."""
    buckets: dict[float, int] = {}
    for bound, value in _TTFT.findall(of_vllm):
        buckets[float(bound)] = buckets.get(float(bound), 0) + int(counters.finite(value))
    samples = {(name, labels): counters.finite(value) for name, labels, value in _OURS.findall(ours)}
    if ("dsv4_live", "") not in samples:
        raise ValueError("these are not the metrics of a health server of dsv4")
    floors = {
        int(labels.partition('"')[2].rstrip('"')): value
        for (name, labels), value in samples.items()
        if name == "dsv4_draft_position_floor"
    }
    starts = samples.get(("dsv4_starts", ""))
    return ReplicaReading(
        counters=counters.read(of_vllm),
        ttft=buckets,
        starts=None if starts is None else int(starts),
        ready=_switch(samples.get(("dsv4_ready", ""))),
        answers_sound=_switch(samples.get(("dsv4_check_ok", _CORRUPTION))),
        degraded=samples.get(("dsv4_degraded", "")) == 1,
        collapsed=samples.get(("dsv4_draft_collapsed", "")) == 1,
        floors=tuple(floors[position] for position in sorted(floors)),
    )


def _switch(value: float | None) -> bool | None:
    return None if value is None else value == 1


def restarted(before: ReplicaReading, after: ReplicaReading) -> bool:
    """Tell whether a replica began anew: counters run backwards, or it counts another start."""
    first, second = before.counters, after.counters
    backwards = second.generated < first.generated or second.finished < first.finished or second.drafts < first.drafts
    return backwards or (before.starts is not None and before.starts != after.starts)


def tally(pairs: Iterable[tuple[ReplicaReading, ReplicaReading]], requests: int, failed: int) -> Tally:
    """Sum what replicas did between two readings each."""
    drafts, speculates, number = 0, False, 0
    accepted: list[int] = []
    ttft: dict[float, int] = {}
    for before, after in pairs:
        number += 1
        speculates = speculates or after.counters.speculates
        drafts += after.counters.drafts - before.counters.drafts
        more = zip_longest(after.counters.accepted_at, before.counters.accepted_at, fillvalue=0)
        accepted = [a + b for a, b in zip_longest(accepted, [late - early for late, early in more], fillvalue=0)]
        for bound, count in (after.ttft or {}).items():
            ttft[bound] = ttft.get(bound, 0) + count - (before.ttft or {}).get(bound, 0)
    return Tally(number, requests, failed, drafts, tuple(accepted), speculates, ttft)


def quantile(ttft: Mapping[float, int], share: float) -> float | None:
    """Return the time within which this share of first tokens came, interpolated in its bucket; None without any."""
    bounds = sorted(ttft)
    if not bounds or not (rank := ttft[bounds[-1]] * share):
        return None
    below, low = 0, 0.0
    for bound in bounds:
        if ttft[bound] >= rank:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (rank - below) / (ttft[bound] - below)
        below, low = ttft[bound], bound
    return None
