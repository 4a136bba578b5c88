"""The metrics of a replica in Prometheus text, in base units. Unknown values are absent. vLLM serves its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from . import checks
from .state import PHASES, Finding, Health

__all__ = ["CONTENT_TYPE", "as_text"]


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
        yield _gauge("dsv4_live", "1 when every check of /livez passes.", checks.passed(findings["live"]))
        yield _gauge("dsv4_ready", "1 when every check of /readyz passes.", checks.passed(findings["ready"]))
        yield from _checks(findings)
        yield _gauge("dsv4_starts", "Starts of this plan on record, this one included.", health.starts)
        wait = 0.0 if health.backoff_until is None else max(0.0, health.backoff_until - now)
        yield _gauge("dsv4_backoff_seconds", "Seconds until the crash-loop breaker lets the next start begin.", wait)
        yield from _known("dsv4_warmup_seconds", "Seconds from start to ready.", health.ready_after)
        age = None if health.engine is None else health.idle_for(now)
        about = "Seconds since the engine last showed progress; 0 when it has nothing to do."
        yield from _known("dsv4_progress_age_seconds", about, age)
        about = "1 when an earlier start of this plan filled the kernel cache, 0 when this one does."
        yield from _known("dsv4_kernel_cache_hit", about, health.cache_hit)
        about = "Seconds saved by this start against the one that filled the kernel cache."
        yield from _known("dsv4_kernel_cache_saved_seconds", about, health.cache_saved)
        yield from _draft_head(health)
        yield from _build(health)


def _phases(health: Health, now: float) -> Iterator[Metric]:
    present = GaugeMetricFamily("dsv4_phase", "1 for the phase that the replica is in.", labels=["phase"])
    for phase in PHASES:
        present.add_metric([phase], phase == health.phase)
    spent = GaugeMetricFamily("dsv4_phase_seconds", "Seconds spent in each phase so far.", labels=["phase"])
    for phase, seconds in health.seconds(now).items():
        spent.add_metric([phase], seconds)
    yield from (present, spent)


def _checks(findings: Mapping[str, Mapping[str, Finding]]) -> Iterator[Metric]:
    labels = ["group", "check"]
    passed = GaugeMetricFamily("dsv4_check_ok", "1 for each check that passes.", labels=labels)
    warned = GaugeMetricFamily("dsv4_check_warning", "1 for each check that passes with a warning.", labels=labels)
    for group, by_name in findings.items():
        for name, finding in by_name.items():
            passed.add_metric([group, name], not finding.problem)
            warned.add_metric([group, name], bool(finding.warning))
    yield from (passed, warned)


def _draft_head(health: Health) -> Iterator[Metric]:
    yield _gauge(
        "dsv4_degraded", "1 when the engine runs without its draft head because the gate failed.", health.degraded
    )
    about = "1 when live traffic has been below the acceptance floor for a whole window."
    yield _gauge("dsv4_acceptance_below_floor", about, health.below_floor)
    yield from _known("dsv4_draft_acceptance_floor", "The share of draft tokens that has to be accepted.", health.floor)
    about = "Accepted / drafted tokens: at the gate, and of live traffic in the sliding window."
    ratio = GaugeMetricFamily("dsv4_draft_acceptance_ratio", about, labels=["source"])
    about = "Draft tokens from which the acceptance ratio is computed."
    tokens = GaugeMetricFamily("dsv4_draft_tokens", about, labels=["source", "kind"])
    for source, acceptance in (("gate", health.gate_acceptance), ("live", health.live_acceptance)):
        if acceptance is None:
            continue
        tokens.add_metric([source, "drafted"], acceptance.drafted)
        tokens.add_metric([source, "accepted"], acceptance.accepted)
        if acceptance.ratio is not None:
            ratio.add_metric([source], acceptance.ratio)
    yield from (family for family in (ratio, tokens) if family.samples)


def _build(health: Health) -> Iterator[Metric]:
    versions = health.plan.get("versions")
    if not isinstance(versions, Mapping) or not versions:
        return
    labels = {_label(str(name)): str(version) for name, version in versions.items()}
    yield InfoMetricFamily("dsv4_build", "Versions of the installed packages.", labels)


def _label(name: str) -> str:
    plain = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"v{plain}" if not plain[:1].isalpha() else plain


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=float(value))


def _known(name: str, about: str, value: float | None) -> Iterator[Metric]:
    if value is not None:
        yield _gauge(name, about, value)
