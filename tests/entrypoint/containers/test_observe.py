"""What is seen of a replica: the answers of the real health checks, joined with the container's."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from dsv4_serve.entrypoint.containers.observe import ContainerState, observe, with_health
from dsv4_serve.entrypoint.containers.status import text
from dsv4_serve.entrypoint.containers.wait import line
from dsv4_serve.healthcheck import checks
from dsv4_serve.healthcheck.state import Finding, Health

BARE = ContainerState("dsv4-replica-0", "replica", "0,1", "running", "2026-11-22T07:00:00.123456789Z", "running")
NOW = datetime(2026, 11, 22, 7, 30, tzinfo=UTC)


def seen(health: Health, now: float = 100.0) -> ContainerState:
    startup, ready = (checks.as_json(name, checks.run(name, health, now), health, now) for name in ("startup", "ready"))
    return with_health(BARE, startup, ready)


@pytest.fixture
def loading() -> Health:
    health = Health(started=0.0, phase="loading weights", phase_began=60.0, percent=43.0, rate=1.5 * 2**30)
    health.engine = 17
    return health


@pytest.fixture
def ready() -> Health:
    health = Health(started=0.0, phase="ready", phase_began=90.0, progressed=100.0)
    health.engine, health.generated_after, health.ready_after = 17, 80.0, 90.0
    health.gate, health.corruption = Finding("91% of 240 draft tokens accepted, the floor is 40%"), Finding("8 of 8")
    return health


def test_a_replica_that_loads_shows_its_phase_percent_and_rate(loading):
    found = seen(loading)
    assert (found.ready, found.phase, found.percent) == (False, "loading weights", 43.0)
    assert found.detail == "43 % at 1.5 GiB/s, 40 s in this phase, 100 s since start"
    assert line(found) == "dsv4-replica-0 loading weights 43 % at 1.5 GiB/s"
    loading.detail, loading.last_start = "shard 3 of 35", {"loading weights": 70.0}
    assert line(seen(loading)) == "dsv4-replica-0 loading weights 43 % at 1.5 GiB/s (shard 3 of 35), about 30 s left"


def test_a_ready_replica_shows_what_its_draft_head_did(ready):
    rows = text([seen(ready)], NOW).splitlines()
    assert re.split(" {2,}", rows[1]) == [
        "dsv4-replica-0",
        "0,1",
        "ready",
        "yes",
        "91% of 240 draft tokens accepted",
        "30 min",
    ]


def test_why_a_running_replica_is_not_ready_stands_beneath_it(ready):
    ready.draining = True
    rows = text([seen(ready)], NOW).splitlines()
    assert rows[2] == "    draining: running requests are finished, no new ones are accepted"


def test_a_ready_replica_without_its_draft_head_says_so(ready):
    ready.degraded = True
    found = seen(ready)
    assert found.ready
    assert found.detail.startswith("degraded: serves without its draft head")


def test_without_containers_it_prints_a_sentence_and_no_empty_table():
    assert text([], NOW) == "nothing is running; `dsv4 up` starts it"


def test_json_has_what_the_table_has(ready):
    assert seen(ready).to_json() == {
        "name": "dsv4-replica-0",
        "role": "replica",
        "gpus": "0,1",
        "state": "running",
        "phase": "ready",
        "detail": "",
        "percent": None,
        "rate": None,
        "seconds_left": None,
        "ready": True,
        "acceptance": "91% of 240 draft tokens accepted, the floor is 40%",
        "since": "2026-11-22T07:00:00.123456789Z",
    }


def test_a_container_without_a_published_port_does_not_answer():
    engine = {"Status": "running", "StartedAt": BARE.began, "Running": True, "ExitCode": 0}
    found = observe(SimpleNamespace(name="a", labels={}, attrs={"State": engine, "NetworkSettings": {"Ports": None}}))
    assert (found.answers, found.detail) == (False, "its health server does not answer")
