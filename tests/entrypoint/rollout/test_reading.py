"""The metrics of a replica, and of HAProxy, as they are written."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dsv4_serve.entrypoint.client.counters import Counters
from dsv4_serve.entrypoint.draft_floors import Floors
from dsv4_serve.entrypoint.rollout import reading
from dsv4_serve.entrypoint.rollout.balancers import BalancerTraffic, counted
from dsv4_serve.entrypoint.rollout.reading import ReplicaReading
from dsv4_serve.healthcheck import metrics
from dsv4_serve.healthcheck.state import Finding, Health

VLLM = """
vllm:generation_tokens_total{engine="0"} 500.0
vllm:request_success_total{engine="0",finished_reason="stop"} 20.0
vllm:spec_decode_num_drafts_total{engine="0"} 100.0
vllm:spec_decode_num_draft_tokens_total{engine="0"} 200.0
vllm:spec_decode_num_accepted_tokens_total{engine="0"} 120.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 80.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="1"} 40.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 5.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.1",model_name="m"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 20.0
"""
HAPROXY = """
haproxy_frontend_http_requests_total{proxy="api"} 99
haproxy_backend_http_requests_total{proxy="replicas"} 40
haproxy_backend_http_requests_total{proxy="sessions"} 10
haproxy_backend_http_requests_total{proxy="candidates"} 7
haproxy_backend_http_responses_total{proxy="replicas",code="2xx"} 38
haproxy_backend_http_responses_total{proxy="replicas",code="5xx"} 2
haproxy_backend_http_responses_total{proxy="candidates",code="4xx"} 3
haproxy_backend_http_responses_total{proxy="candidates",code="5xx"} 1
haproxy_backend_server_aborts_total{proxy="candidates"} 2
"""


def health(**facts: object) -> str:
    made = Health(plan={}, started=0.0)
    for name, value in facts.items():
        setattr(made, name, value)
    return metrics.as_text(made, 10.0).decode()


def test_it_reads_what_the_health_server_writes() -> None:
    ours = health(starts=3, corruption=Finding("", "garbled"), floors=Floors(0.5, (0.6, 0.4)), degraded=True)
    found = reading.read(VLLM, ours)
    assert (found.starts, found.answers_sound, found.ready, found.degraded) == (3, False, False, True)
    assert found.floors == (0.6, 0.4)
    assert found.ttft == {0.1: 7, math.inf: 20}
    assert found.counters.accepted_at == (80, 40)
    assert reading.read(VLLM, health(corruption=Finding("fine"))).answers_sound is True


@pytest.mark.parametrize("value", ["NaN", "+Inf", "x"])
def test_a_number_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="not a finite number|could not convert"):
        counted(f'haproxy_backend_http_requests_total{{proxy="replicas"}} {value}')
    for of_vllm, ours in (
        (f'vllm:time_to_first_token_seconds_bucket{{engine="0",le="0.1",model_name="m"}} {value}', health()),
        ("", f"{health()}dsv4_starts {value}\n"),
    ):
        with pytest.raises(ValueError, match="not a finite number|could not convert"):
            reading.read(of_vllm, ours)


def test_other_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match="not the metrics of a health server"):
        reading.read(VLLM, "up 1\n")


def test_a_tally_sums_what_came_between_two_readings() -> None:
    before = reading.read(VLLM, health())
    later = replace(
        before,
        counters=replace(before.counters, drafts=150, accepted_at=(120, 50)),
        ttft={0.1: 10, math.inf: 25},
    )
    found = reading.tally([(before, later), (before, later)], 9, 1)
    assert (found.replicas, found.requests, found.failed, found.drafts) == (2, 9, 1, 100)
    assert found.accepted_at == (80, 20)
    assert found.shares() == (0.8, 0.2)
    assert found.ttft == {0.1: 6, math.inf: 10}
    assert found.speculates


@pytest.mark.parametrize(
    ("later", "began_anew"),
    [
        (ReplicaReading(Counters(generated=10, finished=2, drafts=5), starts=1), False),
        (ReplicaReading(Counters(generated=9, finished=2, drafts=5), starts=1), True),
        (ReplicaReading(Counters(generated=10, finished=1, drafts=5), starts=1), True),
        (ReplicaReading(Counters(generated=10, finished=2, drafts=4), starts=1), True),
        (ReplicaReading(Counters(generated=10, finished=2, drafts=5), starts=2), True),
    ],
)
def test_a_restart_shows_in_the_counters(later: ReplicaReading, began_anew: bool) -> None:
    before = ReplicaReading(Counters(generated=10, finished=2, drafts=5), starts=1)
    assert reading.restarted(before, later) is began_anew


def test_the_balancer_counts_both_sides() -> None:
    assert counted(HAPROXY) == {"candidate": BalancerTraffic(7, 3), "stable": BalancerTraffic(50, 2)}
    assert BalancerTraffic(7, 3).since(BalancerTraffic(5, 1)) == BalancerTraffic(2, 2)
    assert BalancerTraffic(7, 3).since(BalancerTraffic(50, 1)) == BalancerTraffic(7, 3)
