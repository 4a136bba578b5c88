"""The replica as Prometheus reads it."""

from __future__ import annotations

import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dsv4_serve.entrypoint.draft_floors import Floors
from dsv4_serve.healthcheck import checks, metrics
from dsv4_serve.healthcheck.state import PHASES, Acceptance, Finding, Health
from tests.support.program import need

NOW = 1000.0
FULL = Health(
    started=NOW - 100,
    phase="ready",
    phase_began=NOW - 40,
    phase_seconds={"loading weights": 30.0},
    engine=4711,
    generated_after=58.0,
    ready_after=60.0,
    gate=Finding("good"),
    gate_acceptance=Acceptance(100, 80, 50, (50, 30)),
    floors=Floors(0.3, (0.4, 0.2)),
    corruption=Finding("good"),
    live_acceptance=Acceptance(0, 0),
    progressed=NOW - 3,
    busy=True,
    starts=2,
    plan={"versions": {"vllm": "0.32.0", "dsv4-serve": '0.1"\\\n', "2nd": None}},
)


def read(health: Health) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Samples by name and sorted labels."""
    return samples_of(metrics.as_text(health, NOW).decode())


def samples_of(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Samples of Prometheus text, through prometheus_client's own parser."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_every_known_figure_is_exported() -> None:
    told = read(FULL)
    single = {name: samples[()] for name, samples in told.items() if () in samples}
    assert single == {
        "dsv4_live": 1,
        "dsv4_ready": 1,
        "dsv4_starts": 2,
        "dsv4_backoff_seconds": 0,
        "dsv4_warmup_seconds": 60,
        "dsv4_progress_age_seconds": 3,
        "dsv4_degraded": 0,
        "dsv4_acceptance_below_floor": 0,
        "dsv4_draft_acceptance_floor": 0.3,
        "dsv4_draft_collapsed": 0,
    }
    assert told["dsv4_phase_seconds"] == {(("phase", "loading weights"),): 30, (("phase", "ready"),): 40}
    assert told["dsv4_draft_acceptance_ratio"] == {(("source", "gate"),): 0.8}
    assert told["dsv4_draft_position_acceptance_ratio"] == {
        (("position", "0"), ("source", "gate")): 1.0,
        (("position", "1"), ("source", "gate")): 0.6,
    }
    assert told["dsv4_draft_position_floor"] == {(("position", "0"),): 0.4, (("position", "1"),): 0.2}
    assert told["dsv4_draft_tokens"][("kind", "accepted"), ("source", "gate")] == 80
    assert told["dsv4_draft_tokens"][("kind", "drafted"), ("source", "live")] == 0


def test_exactly_one_phase_is_the_present_one() -> None:
    for phase in PHASES:
        told = read(Health(phase=phase))["dsv4_phase"]
        assert len(told) == len(PHASES)
        assert [labels[0][1] for labels, value in told.items() if value] == [phase]


def test_every_check_of_every_group_has_its_sample() -> None:
    told = read(Health())["dsv4_check_ok"]
    named = {
        (("check", name), ("group", group)) for group, group_checks in checks.GROUPS.items() for name in group_checks
    }
    assert set(told) == named
    assert told[("check", "generation"), ("group", "ready")] == 0
    assert told[("check", "process"), ("group", "live")] == 1


def test_a_check_that_passes_with_a_warning_has_a_sample_that_says_so() -> None:
    told = read(Health(corruption=Finding("", warning="1 of 10 answers differ")))
    assert told["dsv4_check_warning"][("check", "corruption"), ("group", "ready")] == 1
    assert told["dsv4_check_ok"][("check", "corruption"), ("group", "ready")] == 1
    assert read(Health(corruption=Finding("")))["dsv4_check_warning"][("check", "corruption"), ("group", "ready")] == 0


def test_what_is_not_known_is_absent() -> None:
    told = read(Health())
    unknown = {
        "dsv4_warmup_seconds",
        "dsv4_progress_age_seconds",
        "dsv4_draft_acceptance_floor",
        "dsv4_draft_acceptance_ratio",
        "dsv4_draft_tokens",
        "dsv4_build_info",
    }
    assert not unknown & set(told)


def test_time_that_the_breaker_holds_back_runs_down() -> None:
    assert read(Health(phase="backoff", backoff_until=NOW + 12))["dsv4_backoff_seconds"] == {(): 12}
    assert read(Health(backoff_until=NOW - 12))["dsv4_backoff_seconds"] == {(): 0}


def test_versions_are_labels_whatever_their_names_and_values_hold() -> None:
    (labels,) = read(FULL)["dsv4_build_info"]
    assert dict(labels) == {"vllm": "0.32.0", "dsv4_serve": '0.1"\\\n', "v2nd": "None"}


@pytest.mark.parametrize("versions", [{}, None, "0.32.0"])
def test_a_plan_without_versions_has_no_build_info(versions: object) -> None:
    assert "dsv4_build_info" not in read(Health(plan={"versions": versions}))


def test_nothing_is_named_like_vllms_own_metrics() -> None:
    assert all(name.startswith("dsv4_") for name in read(FULL))


@pytest.mark.parametrize("health", [FULL, Health()])
def test_promtool_finds_nothing_to_complain_about(health: Health) -> None:
    done = subprocess.run(
        [need("promtool", "PROMTOOL"), "check", "metrics"],
        input=metrics.as_text(health, NOW),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
