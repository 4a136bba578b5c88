"""Reading vLLM's counters: against prometheus_client's own writer, and against real vLLM."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dsv4_serve.entrypoint.client import http
from dsv4_serve.entrypoint.client.counters import Counters, read
from tests.support.running_demo import Demo


def metrics(server: Demo) -> str:
    return http.get(f"{server.endpoint.url}/metrics", None).text


COUNTS = st.integers(0, 10**9)
NAMES = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


@given(
    model=NAMES,
    engines=st.lists(st.tuples(COUNTS, COUNTS, COUNTS, st.integers(0, 500), st.floats(0, 1)), min_size=1, max_size=4),
    positions=st.lists(COUNTS, max_size=12),
)
def test_what_prometheus_client_writes_is_read_whatever_the_model_is_called(model, engines, positions):
    registry = CollectorRegistry()
    labels = ["model_name", "engine"]
    generated = Counter("vllm:generation_tokens", "x", labels, registry=registry)
    success = Counter("vllm:request_success", "x", [*labels, "finished_reason"], registry=registry)
    drafted = Counter("vllm:spec_decode_num_draft_tokens", "x", labels, registry=registry)
    at = Counter("vllm:spec_decode_num_accepted_tokens_per_pos", "x", [*labels, "position"], registry=registry)
    running = Gauge("vllm:num_requests_running", "x", labels, registry=registry)
    usage = Gauge("vllm:kv_cache_usage_perc", "x", labels, registry=registry)
    for index, (tokens, requests, drafts, now, used) in enumerate(engines):
        generated.labels(model, index).inc(tokens)
        success.labels(model, index, "stop").inc(requests)
        success.labels(model, index, "length").inc(requests)
        drafted.labels(model, index).inc(drafts)
        running.labels(model, index).set(now)
        usage.labels(model, index).set(used)
    for index, count in enumerate(positions):
        at.labels(model, 0, index).inc(count)
    counters = read(generate_latest(registry).decode())
    columns = [sum(column) for column in zip(*engines, strict=True)]
    assert (counters.generated, counters.finished, counters.drafted) == (columns[0], 2 * columns[1], columns[2])
    assert (counters.running, counters.kv_usage) == (columns[3], pytest.approx(columns[4]))
    assert counters.engines == len(engines)
    assert counters.accepted_at == tuple(positions)


def test_steps_are_the_observations_of_the_histogram():
    registry = CollectorRegistry()
    steps = Histogram("vllm:iteration_tokens_total", "x", ["engine"], registry=registry).labels("0")
    for tokens in (1, 4, 2048):
        steps.observe(tokens)
    assert read(generate_latest(registry).decode()) == Counters(steps=3)


def test_the_waits_for_first_tokens_are_added_up_over_the_engines():
    registry = CollectorRegistry()
    waits = Histogram("vllm:time_to_first_token_seconds", "x", ["engine"], registry=registry)
    for engine, seconds in (("0", 0.25), ("0", 0.5), ("1", 2.0)):
        waits.labels(engine).observe(seconds)
    assert read(generate_latest(registry).decode()) == Counters(first_tokens=3, first_token_seconds=2.75)


@pytest.mark.parametrize("text", ["", "<html>a proxy's page</html>", "python_gc_objects_collected_total 4.0\n"])
def test_a_text_without_them_reads_as_nothing(text):
    assert read(text) == Counters()


def test_the_time_when_a_counter_was_made_is_no_count():
    text = "vllm:spec_decode_num_draft_tokens_total 5.0\nvllm:spec_decode_num_draft_tokens_created 1.7953e+09\n"
    assert read(text) == Counters(drafted=5, speculates=True)


@pytest.mark.slow
def test_real_vllm_reports_every_one_of_them(vllm: Demo):
    counters = read(metrics(vllm))
    assert counters.speculates
    assert len(counters.accepted_at) == 3
    missing = [
        name
        for name in ("iteration_tokens_total_count", "kv_cache_usage_perc", "time_to_first_token_seconds_sum")
        if name not in metrics(vllm)
    ]
    assert not missing


@pytest.mark.slow
def test_a_hundred_kilobytes_are_read_in_two_milliseconds(vllm: Demo):
    """0.8 ms on a core of a 2-core machine, CPython 3.11, 2026-11-22; the best of many, so that others do not disturb."""
    text = metrics(vllm)
    text *= 100_000 // len(text) + 1

    def once() -> float:
        began = time.perf_counter()
        read(text)
        return time.perf_counter() - began

    assert min(once() for _ in range(50)) < 0.002


def test_requests_that_failed_are_counted_by_reason() -> None:
    lines = [
        f'vllm:request_success_total{{engine="{engine}",finished_reason="{reason}",model_name="m"}} {count}.0'
        for engine in (0, 1)
        for reason, count in (("stop", 5), ("length", 4), ("abort", 3), ("error", 2), ("repetition", 1))
    ]
    found = read("\n".join(lines))
    assert (found.finished, found.aborted, found.errors) == (30, 6, 4)


@pytest.mark.parametrize("value", ["+Inf", "-Inf", "NaN", "1e999"])
def test_a_counter_that_is_no_number_cannot_be_read(value: str) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        read(f"vllm:num_requests_running {value}")
