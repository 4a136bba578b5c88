"""What startup, live and ready mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dsv4_serve.entrypoint.draft_floors import Floors
from dsv4_serve.entrypoint.vllm_log import startup_phase
from dsv4_serve.healthcheck import checks
from dsv4_serve.healthcheck.positions import COLLAPSED
from dsv4_serve.healthcheck.state import PHASES, Acceptance, Finding, Health, LastExit

NOW = 1000.0
GATE = Finding("64 of 64 draft tokens accepted (100%)")


def serving(**changes: Any) -> Health:
    """A replica that is ready: started 100 s ago, ready after 60 s, idle."""
    known = {
        "started": NOW - 100,
        "phase": "ready",
        "phase_began": NOW - 40,
        "engine": 4711,
        "generated_after": 58.0,
        "ready_after": 60.0,
        "gate": GATE,
        "corruption": Finding("answers agree"),
        "progressed": NOW - 1,
    }
    return Health(**{**known, **changes})


def starting(phase: str = "loading weights", **changes: Any) -> Health:
    """A replica that is not ready yet: started 45 s ago, 12 s in its phase."""
    return Health(**{"started": NOW - 45, "phase": phase, "phase_began": NOW - 12, "engine": 4711, **changes})


def failing(group: str, health: Health) -> dict[str, str]:
    """The checks that fail, with what they say."""
    return {name: found.problem for name, found in checks.run(group, health, NOW).items() if found.problem}


@pytest.mark.parametrize("group", checks.GROUPS)
def test_a_replica_that_serves_passes_every_check(group: str) -> None:
    assert failing(group, serving()) == {}


def test_the_text_is_that_of_etcd_and_kubernetes() -> None:
    passing, stuck = serving(), serving(generated_after=None)
    assert (
        checks.as_text("live", checks.run("live", passing, NOW)) == "[+]process ok\n[+]progress ok\nlive"
        "z check passed\n"
    )
    assert checks.as_text("ready", checks.run("ready", stuck, NOW)) == (
        "[+]accepting ok\n[+]started ok\n[+]gpus ok\n[-]generation failed: no generation has succeeded since the start\n"
        "[+]draft-gate ok\n[+]corruption ok\n[+]progress ok\nreadyz check failed\n"
    )


def test_a_check_stays_on_one_line_whatever_its_finding_says() -> None:
    lines = checks.as_text("ready", {"corruption": Finding("", "one\n[+]two ok\r\nthree")}).splitlines()
    assert lines == ["[-]corruption failed: one [+]two ok three", "readyz check failed"]


def test_a_start_says_how_far_it_is() -> None:
    health = starting(percent=37.2, rate=1.2 * 2**30, caches="cold")
    said = "loading weights: 37 % at 1.2 GiB/s, 12 s in this phase, 45 s since start, caches cold"
    assert failing("startup", health) == {"started": said}


@pytest.mark.parametrize(
    ("health", "said"),
    [
        (starting("resolving"), "resolving: 12 s in this phase, 45 s since start"),
        (
            starting(rate=3.0 * 2**20, caches="warm"),
            "loading weights: at 3 MiB/s, 12 s in this phase, 45 s since start, caches warm",
        ),
        (
            starting("capturing graphs", detail="shapes 120 of 790"),
            "capturing graphs: shapes 120 of 790, 12 s in this phase, 45 s since start",
        ),
        (
            starting("backoff", backoff_until=NOW + 34),
            "backoff: 34 s until the next start, 12 s in this phase, 45 s since start",
        ),
        (
            starting("backoff", backoff_until=NOW - 1),
            "backoff: 0 s until the next start, 12 s in this phase, 45 s since start",
        ),
    ],
)
def test_only_what_is_known_of_a_start_is_reported(health: Health, said: str) -> None:
    assert failing("startup", health)["started"] == said


LAST = {"starting": 20.0, "loading weights": 30.0, "capturing graphs": 8.0, "ready": 99.0}


@pytest.mark.parametrize(
    ("health", "said", "left"),
    [
        (starting("loading weights", last_start=LAST), ", about 26 s left", 26.0),  # 30 - 12 + 8
        (starting("profiling", last_start=LAST), ", about 8 s left", 8.0),
        (starting("proving", last_start=LAST), ", longer than the last start", 0.0),
        (starting("resolving", last_start=LAST), "", None),
        (starting("loading weights"), "", None),
    ],
)
def test_a_start_says_how_long_it_still_takes_by_the_last_one(health: Health, said: str, left: float | None) -> None:
    text = failing("startup", health)["started"]
    assert text.endswith(f"s since start{said}")
    assert checks.as_json("startup", checks.run("startup", health, NOW), health, NOW)["seconds_left"] == left


def test_a_phase_that_comes_twice_counts_once() -> None:
    """vLLM goes back from profiling to compiling kernels."""
    health = starting(
        "compiling kernels", last_start={"compiling kernels": 50.0}, phase_seconds={"compiling kernels": 20.0}
    )
    assert health.seconds_left(NOW) == 18.0


def test_when_a_start_is_ready_counts_the_backoff() -> None:
    assert starting("loading weights", last_start=LAST).ready_in(NOW) == 26.0
    assert starting("loading weights").ready_in(NOW) is None
    waits = starting("backoff", last_start={"starting": 20.0, "proving": 5.0}, backoff_until=NOW + 100.0)
    assert waits.ready_in(NOW) == 125.0
    assert waits.ready_in(NOW + 110.0) == 25.0


def test_a_stalled_start_is_neither_live_nor_getting_on() -> None:
    health = starting("connecting ranks", stalled="connecting ranks: no progress for 60 s (limit 60 s)")
    assert failing("live", health) == {"progress": health.stalled}
    assert failing("startup", health)["progress"] == health.stalled


@pytest.mark.parametrize("phase", PHASES[: PHASES.index("ready")])
def test_a_start_that_gets_on_is_live_and_not_ready(phase: str) -> None:
    health = starting(phase, engine=None if phase in checks.BEFORE_ENGINE else 4711)
    assert failing("live", health) == {}
    assert set(failing("ready", health)) == {"started", "generation", "draft-gate", "corruption"}
    assert set(failing("startup", health)) == {"started"}


@pytest.mark.parametrize("phase", PHASES[len(checks.BEFORE_ENGINE) :])
def test_without_an_engine_it_is_not_live(phase: str) -> None:
    assert failing("live", serving(phase=phase, engine=None)) == {"process": f"no engine runs ({phase})"}


def test_a_replica_that_ended_is_neither_live_nor_accepting() -> None:
    """Why it ended may quote a log, or the path of a secret: that is for stderr, and not for whoever asks."""
    health = serving(phase="ended", ended="/run/secrets/key cannot be read")
    assert failing("live", health) == {"process": checks.ENDED}
    assert failing("ready", health) == {"accepting": checks.ENDED}


def test_draining_takes_away_traffic_and_not_life() -> None:
    health = serving(phase="draining", draining=True)
    assert set(failing("ready", health)) == {"accepting"}
    assert failing("live", health) == {}


def test_a_busy_engine_without_progress_loses_readiness_first_and_life_later() -> None:
    def after(seconds: float) -> tuple[dict[str, str], dict[str, str]]:
        health = serving(busy=True, progressed=NOW - seconds)
        return failing("ready", health), failing("live", health)

    assert after(35) == ({}, {})
    said = "requests are running, but the engine has made no progress for 36 s (limit 35 s)"
    assert after(36) == ({"progress": said}, {})
    assert after(120)[1] == {}
    assert set(after(121)[1]) == {"progress"}


def test_an_idle_engine_makes_progress_however_long_it_idles() -> None:
    health = serving(busy=False, progressed=NOW - 1e6)
    assert failing("ready", health) == failing("live", health) == {}


def test_a_slow_first_generation_is_left_to_the_stall_limit() -> None:
    """While the start is proved, kernels may still be compiled: `live-grace` does not hold yet."""
    assert failing("live", starting("proving", busy=True, progressed=NOW - 300)) == {}


def test_a_gate_that_failed_keeps_traffic_away() -> None:
    health = serving(gate=Finding("2 of 122", "2 of 122 draft tokens accepted (2%), floor 40%"))
    assert failing("ready", health) == {"draft-gate": "2 of 122 draft tokens accepted (2%), floor 40%"}


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (
            {"gate": Finding("2 of 122", warning="2 of 122 draft tokens accepted, floor 40%")},
            "2 of 122 draft tokens accepted, floor 40%",
        ),
        (
            {"degraded": True, "gate": Finding("", "2 of 122 accepted")},
            "degraded: serves without its draft head (2 of 122 accepted)",
        ),
        (
            {"degraded": True, "gate": Finding("no speculation")},
            "degraded: serves without its draft head (no speculation)",
        ),
        ({"degraded": True, "gate": None}, "degraded: serves without its draft head"),
        (
            {"below_floor": True, "live_acceptance": Acceptance(800, 24), "floors": Floors(0.4)},
            "live traffic: 24 of 800 draft tokens accepted (3%, floor 40%)",
        ),
        (
            {
                "below_floor": True,
                "collapsed": True,
                "live_acceptance": Acceptance(800, 390, 400, (380, 10)),
                "floors": Floors(0.3, (0.4, 0.2)),
            },
            "live traffic: 390 of 800 draft tokens accepted (49%, floor 30%); by position 95%, 2% of 400 drafts: "
            + COLLAPSED,
        ),
        (
            {"below_floor": True, "live_acceptance": Acceptance(800, 24), "gate": Finding("", warning="low")},
            "low; live traffic: 24 of 800 draft tokens accepted (3%)",
        ),
    ],
)
def test_a_weak_draft_head_that_may_serve_is_a_warning(changes: dict[str, Any], warning: str) -> None:
    health = serving(**changes)
    found = checks.run("ready", health, NOW)
    assert checks.passed(found)
    lines = checks.as_text("ready", found).splitlines()
    assert "[+]draft-gate ok" in lines
    assert lines[-2:] == [f"warn: draft-gate: {warning}", "readyz check passed"]
    gate = next(c for c in checks.as_json("ready", found, health, NOW)["checks"] if c["name"] == "draft-gate")
    assert (gate["ok"], gate["warning"]) == (True, warning)


def test_json_holds_the_same_checks_and_the_phase() -> None:
    health = serving(corruption=None)
    told = checks.as_json("ready", checks.run("ready", health, NOW), health, NOW)
    assert (told["status"], told["phase"]) == ("failed", "ready")
    assert told["checks"][0] == {"name": "accepting", "ok": True, "detail": "accepting requests"}
    assert told["checks"][5] == {"name": "corruption", "ok": False, "why": "the corruption canary has not run yet"}
    assert [c["name"] for c in told["checks"]] == list(checks.GROUPS["ready"])


def test_the_json_of_a_start_holds_its_figures() -> None:
    health = starting(
        percent=37.2, rate=5e8, detail="shard 3 of 35", phase_seconds={"checking": 3.0, "loading weights": 1.0}
    )
    told = checks.as_json("startup", checks.run("startup", health, NOW), health, NOW)
    told.pop("checks")
    assert json.loads(json.dumps(told)) == {
        "status": "failed",
        "phase": "loading weights",
        "detail": "shard 3 of 35",
        "seconds_in_phase": 12.0,
        "seconds_since_start": 45.0,
        "percent": 37.2,
        "rate": 5e8,
        "seconds_left": None,
        "caches": "unknown",
        "phases": {"checking": 3.0, "loading weights": 13.0},
        "last_start": {},
        "starts": 1,
        "backoff_seconds": None,
        "last_exit": None,
        "key_required": False,
    }


def test_the_json_of_a_start_names_the_last_exit_and_quotes_nothing_of_it() -> None:
    ended = LastExit("engine-died", 82, "the engine died: /models/secret", "RuntimeError: of the log", 1e9)
    health = starting(
        "backoff", backoff_until=NOW + 4.0, starts=3, last_exit=ended, key="sk-secret", last_start={"proving": 9.25}
    )
    told = checks.as_json("startup", checks.run("startup", health, NOW), health, NOW)
    assert told["last_exit"] == {"cause": "engine-died", "status": 82, "at": 1e9}
    assert (told["starts"], told["backoff_seconds"], told["key_required"]) == (3, 4.0, True)
    assert told["last_start"] == {"proving": 9.25}
    assert not any(quoted in json.dumps(told) for quoted in ("/models", "RuntimeError", "sk-secret"))


def test_a_line_of_the_log_is_not_shown_to_whoever_asks() -> None:
    log = startup_phase.StartupProgress(NOW - 200, phase="connecting ranks", last_line="api_key=sk-very-secret")
    health = starting("connecting ranks", stalled=log.stalled(NOW, {"connecting ranks": 60.0}))
    assert "sk-very-secret" in health.stalled
    said = "connecting ranks: no progress for 200 s (limit 60 s, supervise.stall.connecting-ranks)"
    assert failing("live", health) == {"progress": said}


def test_the_json_of_a_stalled_start_names_its_limit() -> None:
    health = starting(stalled="no progress for 600 s", stall_limit=600.0)
    assert checks.as_json("startup", checks.run("startup", health, NOW), health, NOW)["limit"] == 600.0


@pytest.mark.parametrize("state", [serving, starting, Health])
def test_asking_changes_nothing(state: Callable[[], Health]) -> None:
    health = state()
    before = repr(health)
    for group in checks.GROUPS:
        checks.as_json(group, checks.run(group, health, NOW), health, NOW)
    assert repr(health) == before


@pytest.mark.parametrize(
    ("below", "live", "warned"),
    [
        (True, Acceptance(100, 10), True),
        (False, Acceptance(100, 10), False),
        (True, None, False),  # not measured yet
        (True, Acceptance(0, 0), False),
    ],
)
def test_live_traffic_below_the_floor_is_a_warning_once_it_is_measured(
    below: bool, live: Acceptance | None, warned: bool
) -> None:
    warning = checks.draft_gate(serving(below_floor=below, live_acceptance=live), NOW).warning
    assert warning == ("live traffic: 10 of 100 draft tokens accepted (10%)" if warned else "")


def test_times_are_told_to_the_millisecond() -> None:
    health = Health(started=NOW - 45.67891, phase="loading weights", phase_began=NOW - 1.23456, engine=1)
    answer = checks.as_json("startup", checks.run("startup", health, NOW), health, NOW)
    assert (answer["seconds_in_phase"], answer["seconds_since_start"]) == (1.235, 45.679)
    assert answer["phases"] == {"loading weights": 1.235}


def test_progress_is_told_while_there_is_work() -> None:
    assert checks.ready_progress(serving(busy=True, progressed=NOW - 3), NOW).detail == "last progress 3 s ago"
    assert checks.ready_progress(serving(busy=False), NOW).detail == "nothing to do"


@pytest.mark.parametrize(
    ("mebibytes", "told"),
    [(100.45, "100 MiB/s"), (100.55, "101 MiB/s"), (102.4, "0.1 GiB/s"), (512, "0.5 GiB/s"), (3072, "3.0 GiB/s")],
)
def test_a_rate_is_told_in_the_unit_that_fits(mebibytes: float, told: str) -> None:
    assert f" {told}, " in f" {checks.started(starting(rate=mebibytes * 2**20, percent=50.0), NOW).problem}"
