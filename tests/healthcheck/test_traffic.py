"""Traffic of the last seconds, from readings of counters."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.client.counters import Counters
from dsv4_serve.healthcheck.traffic import FIRST_TOKEN, RATE, Traffic, TrafficWindow


def test_the_first_reading_knows_no_rates() -> None:
    counters = Counters(
        generated=500, prompt=9, running=2, waiting=1, kv_usage=0.25, first_tokens=4, first_token_seconds=8.0
    )
    assert TrafficWindow().feed(0.0, counters) == Traffic(2, 1, 0.25)


def test_tokens_are_counted_over_the_last_seconds_only() -> None:
    window = TrafficWindow()
    for second in range(60):
        traffic = window.feed(float(second), Counters(generated=100 * second, prompt=1000 * min(second, 40)))
    assert (traffic.generated_rate, traffic.prompt_rate) == (100.0, 0.0)
    quiet = window.feed(59.0 + RATE, Counters(generated=5900, prompt=40000))
    assert quiet.generated_rate == 0.0


def test_the_first_token_is_a_mean_of_the_last_minutes() -> None:
    window = TrafficWindow()
    window.feed(0.0, Counters(first_tokens=10, first_token_seconds=100.0))
    assert window.feed(2.0, Counters(first_tokens=12, first_token_seconds=101.0)).first_token == 0.5
    assert window.feed(FIRST_TOKEN, Counters(first_tokens=12, first_token_seconds=101.0)).first_token == 0.5
    assert window.feed(FIRST_TOKEN + 2.0, Counters(first_tokens=12, first_token_seconds=101.0)).first_token is None


def test_the_kv_cache_is_the_mean_of_the_engines() -> None:
    traffic = TrafficWindow().feed(0.0, Counters(kv_usage=1.5, engines=4))
    assert traffic.kv_usage == pytest.approx(0.375)


def test_a_restarted_server_begins_anew() -> None:
    window = TrafficWindow()
    window.feed(0.0, Counters(generated=500, first_tokens=5, first_token_seconds=50.0))
    assert window.feed(2.0, Counters(generated=3)) == Traffic(generated_rate=None)
    assert window.feed(4.0, Counters(generated=5)).generated_rate == 1.0
