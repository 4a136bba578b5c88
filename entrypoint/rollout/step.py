"""One step of a canary: the readings of both sides since it began, and the findings from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .balancers import BalancerTraffic
from .judge import CanaryFinding, CanaryLimits, WatchedCandidate, judge
from .reading import ReplicaReading, Tally, restarted, tally
from .replicas import Readings

Counted = Mapping[str, Mapping[str, BalancerTraffic]]
"""BalancerTraffic of each side, by the address of a balancer."""


@dataclass
class CanaryStep:
    """What happened since a share was set; `baseline` is what stable replicas did in earlier steps."""

    share: int
    began: float
    baseline: Tally = field(default_factory=Tally)
    candidates: dict[str, WatchedCandidate] = field(default_factory=dict)
    new: Tally = field(default_factory=Tally)
    stable: Tally = field(default_factory=Tally)
    _stable_first: dict[str, ReplicaReading] = field(default_factory=dict)
    _traffic_first: dict[str, Mapping[str, BalancerTraffic]] = field(default_factory=dict)

    def add(self, candidates: Readings, stable: Readings, counted: Counted) -> None:
        """Take one reading of everything; later ones are compared with the first of each replica and balancer."""
        for address in [*self.candidates, *(one for one in candidates if one not in self.candidates)]:
            one = self.candidates.get(address, WatchedCandidate(address))
            self.candidates[address] = _after(one, candidates.get(address, "its address is gone"))
        pairs = []
        for address, now in stable.items():
            if isinstance(now, ReplicaReading):
                first = self._stable_first.setdefault(address, now)
                if restarted(first, now):  # what it did before is lost
                    first = self._stable_first[address] = now
                pairs.append((first, now))
        new = [(one.first, one.last) for one in self.candidates.values() if one.first and one.last]
        sides = {"candidate": BalancerTraffic(), "stable": BalancerTraffic()}
        for url, until_now in counted.items():
            begun = self._traffic_first.setdefault(url, until_now)
            sides = {side: total.plus(until_now[side].since(begun[side])) for side, total in sides.items()}
        self.new = tally(new, sides["candidate"].requests, sides["candidate"].failed)
        self.stable = tally(pairs, sides["stable"].requests, sides["stable"].failed)

    def compared_with(self, limits: CanaryLimits) -> Tally:
        """Return the stable replicas in this step, or in an earlier one where they have too little traffic now."""
        drafts = not self.stable.speculates or self.stable.drafts >= limits.least_drafts
        enough = drafts and self.stable.requests >= limits.least_requests
        return self.stable if enough or not self.baseline.requests else self.baseline

    def findings(self, limits: CanaryLimits) -> tuple[CanaryFinding, ...]:
        """Return what every rule finds now."""
        return judge(self.candidates, self.new, self.compared_with(limits), limits)


def _after(one: WatchedCandidate, now: ReplicaReading | str) -> WatchedCandidate:
    if isinstance(now, str):
        return replace(one, silent=one.silent + 1, why=now)
    if one.first and one.last and restarted(one.first, one.last):
        return one  # it stays found
    unready = 0 if now.ready else one.unready + 1
    return replace(one, first=one.first or now, last=now, silent=0, unready=unready)
