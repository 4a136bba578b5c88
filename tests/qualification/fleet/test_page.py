"""The tables of docs/results/fleet.md are made from the results."""

from __future__ import annotations

import json
from pathlib import Path

from qualification.fleet import page
from qualification.fleet.haproxies import named

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
    again = {"ready_again_after": 171.6, "back_after_ready": 0.9}
    start = {"replicas": {"a": {"ready_after": 317.2}, "b": {"ready_after": 318.7}}, "in_rotation_after_ready": 0.6}
    older = {"file": "a.json", "steps": {"drain": drain, "kill": kill}}
    newer = {"file": "b.json", "steps": {"start": start, "kill": kill | {"failed": 0}, "after kill": again}}
    lost = "4 of 16; 1 of those sent after it was out"
    one, two = (f"[{number}](../../qualification/results/fleet/{file}.json)" for number, file in ((1, "a"), (2, "b")))
    lines = page.on_gpus([older, newer]).splitlines()[2:]
    assert lines == [
        f"| started at the same time |  |  | ready after 317 and 319 s, in rotation 0.6 s later | {two} |",
        f"| SIGTERM | 0.1 s | 0 of 16 | ended with status 0 after 30 s; then unmeasured | {one} |",
        f"| killed (SIGKILL) | 0.1 s | {lost} | unmeasured | {one} |",
        f"| killed (SIGKILL) | 0.1 s | 0 of 16 | started again, ready after 172 s, in rotation 0.9 s later | {two} |",
        "| a worker hangs (SIGSTOP) | unmeasured | unmeasured | unmeasured |  |",
    ]


def test_beside_the_simulated_pair_stands_the_newer_run_of_a_fault_with_its_own_return() -> None:
    fault = {"out_after": 0.6, "first_request_after": 1.2, "requests": 22}
    fault |= {f"lost_{how}": 0 for how in ("that_ran_there", "sent_there_later", "elsewhere")}
    faults = [fault | {"kind": kind} for kind in page.FAULTS]
    rows = [{"replicas": 2, "front": front, "variant": "", "faults": faults} for front in ("HAProxy 2", "HAProxy 3")]
    kill = {"out_after": 0.1, "requests": 16, "failed": 0}
    both = {"gpus": ["0,1", "2,3"], "front": "HAProxy 2"}
    older = both | {"steps": {"drain": kill, "kill": kill, "after kill": {"back_after_ready": 0.9}}}
    newer = both | {"steps": {"kill": kill | {"requests": 12}}}
    cells = {
        line.split(" | ")[0].strip("| "): line.split(" | ")[4:] for line in page.pair(rows, [older, newer]).splitlines()
    }
    assert cells["killed"] == ["0.1 s", "0 of 12", "unmeasured |"]
    assert cells["drained"] == ["0.1 s", "0 of 16", "unmeasured |"]
    assert cells["engine hangs"] == ["unmeasured", "unmeasured", "unmeasured |"]


def test_runs_come_in_the_order_of_day_and_name(tmp_path: Path) -> None:
    for name, day in (("a", "2026-12-01"), ("c", "2026-11-30"), ("b", "2026-11-30")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"kind": "fleet-pair", "date": day}))
    assert [one["file"] for one in page.results("fleet-pair", tmp_path)] == ["b.json", "c.json", "a.json"]


def test_a_balancer_is_named_with_its_version(tmp_path: Path) -> None:
    program = tmp_path / "haproxy"
    program.write_text("#!/bin/sh\necho 'HAProxy version 2.6.12-1+deb12u1 2023/12/16 - https://haproxy.org/'\n")
    program.chmod(0o755)
    assert named(str(program)) == "HAProxy 2.6.12"
