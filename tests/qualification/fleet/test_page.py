"""The tables of docs/results/fleet.md are made from the results."""

from __future__ import annotations

from qualification.fleet import page

ROWS = page.read()


def test_the_page_is_made_from_the_results() -> None:
    text = page.PAGE.read_text()
    assert page.page(text, ROWS) == text
    text = page.BALANCER.read_text()
    assert page.balancer(text) == text


def test_percentiles_of_a_run_whose_clients_were_late_are_left_out() -> None:
    seen = {"lag_ms": {"p99": 3.0}, "replica_lag_ms": {"p99": 3.0}, "chunk_ms": {"p50": 1.0, "p99": 9.0}}
    assert page.ms(seen, "chunk_ms") == "1.0, 9.0 ms"
    assert page.ms(seen | {"replica_lag_ms": {"p99": page.LATE + 1}}, "chunk_ms") == "1.0, – ms"


def test_what_was_never_observed_is_marked() -> None:
    assert page.out({"out_after": None}) == "stays in"
    assert page.back({"first_request_after": None}) == "> 4 s"
    assert page.back({"first_request_after": 0.04}) == "0.0 s"


def test_a_step_on_gpus_that_was_not_reached_is_unmeasured_and_lost_requests_are_told_apart() -> None:
    kill = {"out_after": 0.1, "requests": 16, "failed": 4, "failed_later": 1}
    drain = kill | {"failed": 0, "failed_later": 0, "status": 0, "ended_after": 30.2}
    run = {"steps": {"drain": drain, "kill": kill, "after kill": {"ready_again_after": 171.6, "back_after_ready": 0.9}}}
    lost = "4 of 16; 1 of those sent after it was out"
    lines = page.on_gpus([run]).splitlines()[2:]
    assert lines == [
        "| SIGTERM | 0.1 s | 0 of 16 | ended with status 0 after 30 s; then unmeasured |",
        f"| killed (SIGKILL) | 0.1 s | {lost} | started again, ready after 172 s, in rotation 0.9 s later |",
        "| a worker hangs (SIGSTOP) | unmeasured | unmeasured | unmeasured |",
    ]
