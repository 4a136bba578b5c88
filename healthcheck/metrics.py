"""The metrics of a replica in Prometheus text, in base units. Unknown values are absent. vLLM serves its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from . import checks
from .state import PHASES, Finding, Health

__all__ = ["CONTENT_TYPE", "FAMILIES", "Family", "as_text"]


@dataclass(frozen=True)
class Family:
    """One metric: its name, what it says, and the labels of its samples; labels of an info metric depend on it."""

    name: str
    about: str
    labels: tuple[str, ...] = ()
    kind: type[GaugeMetricFamily | InfoMetricFamily] = GaugeMetricFamily

    def metric(self) -> Any:
        """Return it without samples."""
        return self.kind(self.name, self.about, labels=self.labels)


FAMILIES = {
    family.name: family
    for family in (
        Family("dsv4_phase", "1 for the phase that the replica is in, 0 for every other.", ("phase",)),
        Family("dsv4_phase_seconds", "Seconds spent in each phase so far.", ("phase",)),
        Family("dsv4_live", "1 when every check of /livez passes."),
        Family("dsv4_ready", "1 when every check of /readyz passes."),
        Family("dsv4_check_ok", "1 for each check that passes, with or without a warning.", ("group", "check")),
        Family("dsv4_check_warning", "1 for each check that passes with a warning.", ("group", "check")),
        Family(
            "dsv4_gpu_fault", "1 for each GPU that has failed since the start, by the driver's error.", ("gpu", "xid")
        ),
        Family("dsv4_starts", "Starts of this plan on record, this one included."),
        Family("dsv4_backoff_seconds", "Seconds until the crash-loop breaker lets the next start begin."),
        Family("dsv4_warmup_seconds", "Seconds from the start until the replica was ready."),
        Family("dsv4_progress_age_seconds", "Seconds since the engine last made progress; 0 while it has no work."),
        Family("dsv4_kernel_cache_hit", "1 when an earlier start filled the kernel cache, 0 when this one does."),
        Family("dsv4_kernel_cache_saved_seconds", "Seconds saved against the start that filled the kernel cache."),
        Family("dsv4_degraded", "1 when the engine runs without its draft head because the draft gate failed."),
        Family("dsv4_acceptance_below_floor", "1 when live acceptance was below its floor for a whole window."),
        Family("dsv4_draft_acceptance_floor", "The lowest share of draft tokens that has to be accepted."),
        Family(
            "dsv4_draft_acceptance_ratio",
            "Accepted / drafted tokens, at the draft gate and of live traffic in the sliding window.",
            ("source",),
        ),
        Family(
            "dsv4_draft_position_acceptance_ratio",
            "Drafts accepted up to each position, 0 first, by drafts of any length.",
            ("source", "position"),
        ),
        Family("dsv4_draft_position_floor", "The lowest share of drafts accepted up to a position.", ("position",)),
        Family("dsv4_draft_collapsed", "1 when live traffic accepts first draft tokens, and hardly any after them."),
        Family("dsv4_draft_tokens", "Draft tokens behind each acceptance ratio.", ("source", "kind")),
        Family("dsv4_build", "Versions of the installed packages, one label for each.", kind=InfoMetricFamily),
    )
}
"""Every metric of a replica by name."""


def as_text(health: Health, now: float) -> bytes:
    """Return the metrics in the format of CONTENT_TYPE."""
    return generate_latest(_Replica(health, now))


class _Replica(Collector):
    def __init__(self, health: Health, now: float) -> None:
        self.health, self.now = health, now

    def collect(self) -> Iterator[Metric]:
        health, now = self.health, self.now
        findings = {group: checks.run(group, health, now) for group in checks.GROUPS}
        yield from _phases(health, now)
        yield from _value("dsv4_live", checks.passed(findings["live"]))
        yield from _value("dsv4_ready", checks.passed(findings["ready"]))
        yield from _checks(findings)
        yield from _gpu_faults(health)
        yield from _value("dsv4_starts", health.starts)
        wait = 0.0 if health.backoff_until is None else max(0.0, health.backoff_until - now)
        yield from _value("dsv4_backoff_seconds", wait)
        yield from _value("dsv4_warmup_seconds", health.ready_after)
        yield from _value("dsv4_progress_age_seconds", None if health.engine is None else health.idle_for(now))
        yield from _value("dsv4_kernel_cache_hit", health.cache_hit)
        yield from _value("dsv4_kernel_cache_saved_seconds", health.cache_saved)
        yield from _draft_head(health)
        yield from _build(health)


def _phases(health: Health, now: float) -> Iterator[Metric]:
    present, spent = FAMILIES["dsv4_phase"].metric(), FAMILIES["dsv4_phase_seconds"].metric()
    for phase in PHASES:
        present.add_metric([phase], phase == health.phase)
    for phase, seconds in health.seconds(now).items():
        spent.add_metric([phase], seconds)
    yield from (present, spent)


def _checks(findings: Mapping[str, Mapping[str, Finding]]) -> Iterator[Metric]:
    passed, warned = FAMILIES["dsv4_check_ok"].metric(), FAMILIES["dsv4_check_warning"].metric()
    for group, by_name in findings.items():
        for name, finding in by_name.items():
            passed.add_metric([group, name], not finding.problem)
            warned.add_metric([group, name], bool(finding.warning))
    yield from (passed, warned)


def _gpu_faults(health: Health) -> Iterator[Metric]:
    if health.gpu_faults:
        faults = FAMILIES["dsv4_gpu_fault"].metric()
        for fault in health.gpu_faults:
            faults.add_metric([fault.gpu, str(fault.xid)], 1.0)
        yield faults


def _draft_head(health: Health) -> Iterator[Metric]:
    yield from _value("dsv4_degraded", health.degraded)
    yield from _value("dsv4_acceptance_below_floor", health.below_floor)
    yield from _value("dsv4_draft_collapsed", health.collapsed)
    yield from _value("dsv4_draft_acceptance_floor", health.floors.total if health.floors else None)
    ratio, tokens = FAMILIES["dsv4_draft_acceptance_ratio"].metric(), FAMILIES["dsv4_draft_tokens"].metric()
    positions, floors = (
        FAMILIES["dsv4_draft_position_acceptance_ratio"].metric(),
        FAMILIES["dsv4_draft_position_floor"].metric(),
    )
    for position, floor in enumerate(health.floors.positions if health.floors else ()):
        floors.add_metric([str(position)], floor)
    for source, acceptance in (("gate", health.gate_acceptance), ("live", health.live_acceptance)):
        if acceptance is None:
            continue
        tokens.add_metric([source, "drafted"], acceptance.drafted)
        tokens.add_metric([source, "accepted"], acceptance.accepted)
        if acceptance.ratio is not None:
            ratio.add_metric([source], acceptance.ratio)
        for position, share in enumerate(acceptance.positions):
            positions.add_metric([source, str(position)], share)
    yield from (family for family in (ratio, positions, floors, tokens) if family.samples)


def _build(health: Health) -> Iterator[Metric]:
    versions = health.plan.get("versions")
    if not isinstance(versions, Mapping) or not versions:
        return
    build = FAMILIES["dsv4_build"].metric()
    build.add_metric([], {_label(str(name)): str(version) for name, version in versions.items()})
    yield build


def _label(name: str) -> str:
    plain = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"v{plain}" if not plain[:1].isalpha() else plain


def _value(name: str, value: float | None) -> Iterator[Metric]:
    """Yield a metric with one sample; nothing where its value is not known."""
    if value is not None:
        metric = FAMILIES[name].metric()
        metric.add_metric([], float(value))
        yield metric
