"""
Whether candidates may have a larger share: one finding for each rule, from what both sides did in a step.

Evidence that is missing is never in favour of a candidate. A finding that is `certain` ends a step early.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .reading import ReplicaReading, Tally, quantile, restarted

State = Literal["good", "bad", "missing"]
TTFT_SHARE = 0.9
"""The quantile of the time to first token: of 20 requests, 2 are above it."""
_CORRELATED = 4.0
"""How much wider the noise of acceptance is taken than that of independent drafts: those of one answer are alike."""
_SIGMAS = 3.0
_FEWEST_FAILED = 3
_ACCEPTANCE = "acceptance"
_POLLS = 3
"""As many readings in a row have to fail before a silent or unready candidate is given up."""


@dataclass(frozen=True)
class CanaryLimits:
    """What evidence a step needs, and how much worse candidates may be than stable replicas."""

    least_requests: int = 20
    """Of clients, on each side: fewer have no ninth decile."""
    least_drafts: int = 1000
    """On each side: three standard errors are then 0.05 or less for independent drafts."""
    acceptance_drop: float = 0.05
    """At any position, below the stable replicas' share: as much as the noise of `least_drafts`."""
    error_rise: float = 0.01
    """Share of requests that fail, above the stable replicas'."""
    ttft_ratio: float = 1.5
    """Of the ninth decile, to the stable replicas': vLLM's buckets are about as far apart."""


@dataclass(frozen=True)
class CanaryFinding:
    """What one rule found; `text` is a clause for people."""

    rule: str
    state: State
    text: str
    certain: bool = False


@dataclass(frozen=True)
class WatchedCandidate:
    """One candidate: its address, its first and last reading in this step, and failed polls in a row."""

    address: str
    first: ReplicaReading | None = None
    last: ReplicaReading | None = None
    silent: int = 0
    """Polls in a row without an answer; `why` is the last error."""
    unready: int = 0
    why: str = ""


def judge(
    candidates: Mapping[str, WatchedCandidate], new: Tally, stable: Tally, limits: CanaryLimits
) -> tuple[CanaryFinding, ...]:
    """Return the finding of every rule; candidates may go on when all are good."""
    return (
        replicas(candidates),
        answers(candidates),
        traffic(new, stable, limits),
        acceptance(candidates, new, stable, limits),
        errors(new, stable, limits),
        first_token(new, stable, limits),
    )


def replicas(candidates: Mapping[str, WatchedCandidate]) -> CanaryFinding:
    """Tell whether every candidate answers, is ready, and is the one that the step began with."""
    rule = "replicas"
    if not candidates:
        return CanaryFinding(rule, "missing", "no candidate was found")
    for one in candidates.values():
        if one.first and one.last and restarted(one.first, one.last):
            return CanaryFinding(rule, "bad", f"{one.address} restarted", certain=True)
        if one.silent:
            text = f"the metrics of {one.address} cannot be read ({one.why})"
            return CanaryFinding(rule, "missing", text, certain=one.silent >= _POLLS)
        if one.unready:
            return CanaryFinding(rule, "bad", f"{one.address} is not ready", certain=one.unready >= _POLLS)
    return CanaryFinding(rule, "good", f"{_number(len(candidates), 'candidate')} ready, none restarted")


def answers(candidates: Mapping[str, WatchedCandidate]) -> CanaryFinding:
    """Tell what the corruption canary of each candidate found."""
    rule = "answers"
    found = {one.address: one.last.answers_sound if one.last else None for one in candidates.values()}
    if wrong := [address for address, sound in found.items() if sound is False]:
        return CanaryFinding(rule, "bad", f"the corruption canary of {wrong[0]} failed", certain=True)
    if not found or None in found.values():
        return CanaryFinding(rule, "missing", "no result of the corruption canary")
    return CanaryFinding(rule, "good", "the corruption canary passed")


def traffic(new: Tally, stable: Tally, limits: CanaryLimits) -> CanaryFinding:
    """Tell whether both sides had enough requests of clients."""
    text = f"{_number(new.requests, 'request')} to candidates, {stable.requests} to stable replicas"
    for side in (new, stable):
        if side.requests < limits.least_requests:
            return CanaryFinding("traffic", "missing", f"{text}; {limits.least_requests} each are required")
    return CanaryFinding("traffic", "good", text)


def acceptance(
    candidates: Mapping[str, WatchedCandidate], new: Tally, stable: Tally, limits: CanaryLimits
) -> CanaryFinding:
    """Compare draft acceptance by position with its floor, and with the stable replicas'."""
    last = [one.last for one in candidates.values() if one.last]
    if finding := _without_drafts(last, new, stable):
        return finding
    floors = max((one.floors for one in last), default=(), key=len)
    worst = worst_position(new, stable, floors, limits)
    if worst and worst.certain and new.drafts >= limits.least_drafts:
        return worst
    for name, side in (("candidates", new), ("stable replicas", stable)):
        if side.drafts < limits.least_drafts and (side is new or stable.speculates):
            text = f"{_number(side.drafts, 'draft')} by {name}, {limits.least_drafts:,} are required"
            return CanaryFinding(_ACCEPTANCE, "missing", text)
    text = f"candidates accept {_shares(new)} by position, stable replicas {_shares(stable)}"
    return worst or CanaryFinding(_ACCEPTANCE, "good", text)


def _without_drafts(last: list[ReplicaReading], new: Tally, stable: Tally) -> CanaryFinding | None:
    """Return the finding where candidates lost their draft head, or nothing drafts; None where they draft."""
    for lost, text in (
        (any(one.degraded for one in last), "a candidate serves without its draft head"),
        (any(one.collapsed for one in last), "a candidate accepts first draft tokens only"),
        (bool(last) and stable.speculates and not new.speculates, "candidates do not draft, stable replicas do"),
    ):
        if lost:
            return CanaryFinding(_ACCEPTANCE, "bad", text, certain=True)
    if new.speculates:
        return None
    if last:
        return CanaryFinding(_ACCEPTANCE, "good", "no replica drafts")
    return CanaryFinding(_ACCEPTANCE, "missing", "no draft counters")


def worst_position(new: Tally, stable: Tally, floors: tuple[float, ...], limits: CanaryLimits) -> CanaryFinding | None:
    """Return the first position that is below its floor, or too far below the stable replicas'; None when none is."""
    compared = stable.shares() if stable.drafts >= limits.least_drafts else ()
    for position, share in enumerate(new.shares()):
        floor = floors[position] if position < len(floors) else 0.0
        other = compared[position] if position < len(compared) else None
        text = f"candidates accept {share:.0%} of {new.drafts:,} drafts at position {position}"
        if share < floor:
            sure = share + _noise(floor, new.drafts) < floor
            comparison = "" if other is None else f", stable replicas accept {other:.0%}"
            return CanaryFinding(_ACCEPTANCE, "bad", f"{text}, the floor is {floor:.0%}{comparison}", certain=sure)
        if other is not None and share < other - limits.acceptance_drop:
            sure = share + _noise(other, min(new.drafts, stable.drafts)) < other - limits.acceptance_drop
            return CanaryFinding(_ACCEPTANCE, "bad", f"{text}, stable replicas {other:.0%}", certain=sure)
    return None


def _noise(share: float, drafts: int) -> float:
    return _SIGMAS * math.sqrt(_CORRELATED * share * (1 - share) / drafts)


def errors(new: Tally, stable: Tally, limits: CanaryLimits) -> CanaryFinding:
    """Compare the share of requests that failed."""
    rule = "errors"
    if not new.requests:
        return CanaryFinding(rule, "missing", "no requests to candidates")
    allowed = (stable.failed / stable.requests if stable.requests else 0.0) + limits.error_rise
    text = f"{new.failed} of {_number(new.requests, 'request')} to candidates failed"
    text += f", {stable.failed} of {stable.requests:,} to stable replicas"
    if new.failed / new.requests > allowed:
        certain = new.failed >= _FEWEST_FAILED and new.failed > 3 * allowed * new.requests
        return CanaryFinding(rule, "bad", text, certain=certain)
    return CanaryFinding(rule, "good", text)


def first_token(new: Tally, stable: Tally, limits: CanaryLimits) -> CanaryFinding:
    """Compare the ninth decile of the time to first token."""
    rule = "first token"
    ours, theirs = (quantile(side.ttft or {}, TTFT_SHARE) for side in (new, stable))
    if ours is None or theirs is None:
        return CanaryFinding(rule, "missing", "no times to first token")
    text = f"{TTFT_SHARE:.0%} of first tokens come within {ours:.2f} s, from stable replicas within {theirs:.2f} s"
    return CanaryFinding(rule, "bad" if ours > theirs * limits.ttft_ratio else "good", text)


def _shares(side: Tally) -> str:
    return " ".join(f"{share:.0%}" for share in side.shares()) or "nothing"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
