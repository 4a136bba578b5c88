"""The tables of docs/results/fleet.md are made from the results."""

from __future__ import annotations

from qualification.fleet import page

ROWS = page.read()


def test_the_page_is_made_from_the_results() -> None:
    text = page.PAGE.read_text()
    assert page.page(text, ROWS) == text


def test_percentiles_of_a_run_whose_clients_were_late_are_left_out() -> None:
    seen = {"lag_ms": {"p99": 3.0}, "replica_lag_ms": {"p99": 3.0}, "chunk_ms": {"p50": 1.0, "p99": 9.0}}
    assert page.ms(seen, "chunk_ms") == "1.0, 9.0 ms"
    assert page.ms(seen | {"replica_lag_ms": {"p99": page.LATE + 1}}, "chunk_ms") == "1.0, – ms"


def test_what_was_never_observed_is_marked() -> None:
    assert page.out({"out_after": None}) == "stays in"
    assert page.back({"first_request_after": None}) == "> 4 s"
    assert page.back({"first_request_after": 0.04}) == "0.0 s"
