"""
Make the tables of docs/results/fleet.md, and that of GPUs in balancer.md, from qualification/results/fleet/*.json.

    python -m qualification.fleet.page
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tools.tables import renewed

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/results/fleet.md"
BALANCER = ROOT / "docs/results/balancer.md"
RESULTS = ROOT / "qualification" / "results" / "fleet"
LATE = 20.0
"""Milliseconds: where clients or replicas were later than that in one look of a hundred, the 99th percentiles are left out."""
Row = Mapping[str, Any]

FAULTS = {
    "kill": "killed",
    "hang": "engine hangs",
    "freeze": "engine and supervisor hang",
    "drain": "drained",
}
EVENTS = {
    "start": "started at the same time",
    "drain": "SIGTERM",
    "kill": "killed (SIGKILL)",
    "hang": "a worker hangs (SIGSTOP)",
}


def main() -> int:
    PAGE.write_text(page(PAGE.read_text(), read()))
    BALANCER.write_text(balancer(BALANCER.read_text()))
    return 0


def results(kind: str, folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the results of one kind, each with the name of its `file`, in the order of day and name."""
    found = (json.loads(path.read_text()) | {"file": path.name} for path in sorted(folder.glob("*.json")))
    return sorted((one for one in found if one["kind"] == kind), key=lambda one: one.get("date", ""))


def read(folder: Path = RESULTS) -> list[Row]:
    """Return all rows in the order of the tables."""
    rows = [row for one in results("fleet", folder) for row in one["rows"]]
    return sorted(rows, key=lambda row: (row["replicas"], row["sessions"], name(row) != "none", name(row)))


def page(text: str, rows: list[Row]) -> str:
    """Return the page with its tables made anew; they stand between `<!-- table: NAME -->` and `<!-- end -->`."""
    whole = [row for row in rows if row["faults"]]
    tables = {
        "steady": steady(row for row in rows if not row["sessions"] and " x " not in row["front"]),
        "sharing": sharing(rows),
        "idle": idle(),
        "out": pivot(whole, FAULTS, out),
        "lost": pivot(whole, FAULTS, lost),
        "back": pivot(whole, FAULTS, back),
        "slow": pivot(whole, {"slow": "four times as slow"}, lambda fault: f"{fault['share_of_mean']:.2f}"),
        "pair": pair(whole, results("fleet-pair")),
    }
    return renewed(text, tables, PAGE)


def balancer(text: str) -> str:
    """Return the page of one pair of replicas with its table of GPUs made anew."""
    return renewed(text, {"gpus": on_gpus(results("fleet-pair"))}, BALANCER)


def name(row: Row) -> str:
    """Return the balancer, with what was not as shipped."""
    variant = row["variant"]
    if row["front"].startswith("vllm-router"):
        return f"{row['front']}, `{variant.removeprefix('policy=') or 'cache_aware'}`"
    return f"{row['front']}, without `http-no-delay`" if variant == "delay" else row["front"]


def head(columns: Iterable[str]) -> list[str]:
    columns = list(columns)
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]


def steady(rows: Iterable[Row]) -> str:
    """Return what was measured while every replica was healthy."""
    lines = head(
        (
            *("replicas", "balancer", "requests/s", "running on a replica: mean, most", "most / mean"),
            *(
                "client to replica, p50, p99",
                "replica to client, p50, p99",
                "balancer's cores",
                "MiB",
                "checks/s",
                "lost",
            ),
            "clients late, p99",
        )
    )
    for row in rows:
        seen = row["steady"]
        none = name(row) == "none"
        cells = (
            *(str(row["replicas"]), name(row), f"{row['requests_per_second']:.1f}"),
            *(f"{seen['running_per_replica']:.1f}, {seen['most_on_one']}", f"{seen['imbalance']:.2f}"),
            *(ms(seen, "request_ms"), ms(seen, "chunk_ms")),
            *(
                ("", "", "")
                if none
                else (f"{seen['balancer_cores']:.2f}", str(seen["balancer_mib"]), f"{seen['checks_per_second']:.0f}")
            ),
            *(f"{seen['lost']} of {seen['requests']}", f"{seen['lag_ms']['p99']:.0f} ms"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def late(seen: Mapping[str, Any]) -> bool:
    return max(seen["lag_ms"]["p99"], seen["replica_lag_ms"]["p99"]) > LATE


def ms(seen: Mapping[str, Any], what: str) -> str:
    often, rarely = f"{seen[what]['p50']:.1f}", f"{seen[what]['p99']:.1f}"
    return f"{often}, {'–' if late(seen) else rarely} ms"


def sharing(rows: list[Row]) -> str:
    """Return how even the load is, by the share of requests with a session and by the number of balancers."""
    counts = {row["replicas"] for row in rows if row["sessions"]}
    lines = head(("replicas", "balancer", "requests with a session", "running on a replica: mean, most", "most / mean"))
    for row in sorted(rows, key=lambda row: (row["sessions"], len(row["front"]), row["front"])):
        if row["replicas"] in counts and "HAProxy" in row["front"] and not row["variant"].strip("0123456789"):
            seen = row["steady"]
            cells = (str(row["replicas"]), name(row), f"{row['sessions']:.0%}")
            loads = (f"{seen['running_per_replica']:.1f}, {seen['most_on_one']}", f"{seen['imbalance']:.2f}")
            lines.append(f"| {' | '.join((*cells, *loads))} |")
    return "\n".join(lines) + "\n"


def idle() -> str:
    """Return what HAProxy costs while no client sends anything."""
    lines = head(("replicas", "found by name", "balancer", "cores", "MiB", "checks/s", "its metrics: samples, MB"))
    for one in (row for result in results("fleet-limits") for row in result["idle"]):
        size = f"{one['samples']:,}, {one['metrics_bytes'] / 1e6:.2f}"
        numbers = (f"{one['cores']:.3f}", str(one["mib"]), f"{one['checks_per_second']:.0f}", size)
        lines.append(f"| {' | '.join((str(one['replicas']), str(one['found']), one['front'], *numbers))} |")
    return "\n".join(lines) + "\n"


def pivot(rows: list[Row], faults: Mapping[str, str], cell: Callable[[Row], str]) -> str:
    """Return a table with a line for each fault and front, and a column for each number of replicas."""
    counts = sorted({row["replicas"] for row in rows})
    fronts = sorted({name(row) for row in rows if not row["sessions"]})
    lines = head(("fault", "balancer", *(f"{count} replicas" for count in counts)))
    for kind, title in faults.items():
        for before in fronts:
            found = {
                row["replicas"]: cell(fault)
                for row in rows
                if name(row) == before and not row["sessions"]
                for fault in row["faults"]
                if fault["kind"] == kind
            }
            if found:
                lines.append(f"| {title} | {before} | {' | '.join(found.get(count, '') for count in counts)} |")
    return "\n".join(lines) + "\n"


def pair(rows: Iterable[Row], runs: Iterable[Row]) -> str:
    """Return a table of two replicas, simulated beside those on GPUs, behind the same balancer; of two runs, the newer one."""
    simulated = ("simulated: out after", "lost", "first request after ready")
    lines = head(("fault", *simulated, "on GPUs: out after", "lost", "in rotation after ready"))
    runs = list(runs)
    sizes = {(len(one["gpus"]), one["front"]) for one in runs}
    (same,) = (row for row in rows if (row["replicas"], name(row)) in sizes)
    made = {fault["kind"]: fault for fault in same["faults"]}
    for kind, title in FAULTS.items():
        seen = (out(made[kind]), lost(made[kind]), back(made[kind]))
        steps = next((one["steps"] for one in reversed(runs) if kind in one["steps"]), {})
        step, again = steps.get(kind), steps.get(f"after {kind}")
        real = (f"{step['out_after']:.1f} s", failed(step)) if step else ("unmeasured", "unmeasured")
        returned = f"{again['back_after_ready']:.1f} s" if again else "unmeasured"
        lines.append(f"| {' | '.join((title, *seen, *real, returned))} |")
    return "\n".join(lines) + "\n"


def on_gpus(runs: Iterable[Row]) -> str:
    """Return what clients lost on GPUs while one of two replicas stopped or died, by event, a row for each run that has it."""
    lines = head(("event", "out of rotation after", "failed requests", "back", "run"))
    numbered = list(enumerate(runs, 1))
    for kind, title in EVENTS.items():
        found = [
            (*event(one["steps"], kind), f"[{number}](../../qualification/results/fleet/{one['file']})")
            for number, one in numbered
            if kind in one["steps"]
        ]
        lines += [f"| {' | '.join((title, *cells))} |" for cells in found or [("unmeasured",) * 3 + ("",)]]
    return "\n".join(lines) + "\n"


def event(steps: Row, kind: str) -> tuple[str, str, str]:
    """Return when a replica was out of rotation, which requests failed, and how it came back."""
    step = steps[kind]
    if kind == "start":
        after = " and ".join(f"{one['ready_after']:.0f}" for one in step["replicas"].values())
        return "", "", f"ready after {after} s, in rotation {step['in_rotation_after_ready']:.1f} s later"
    return f"{step['out_after']:.1f} s", failed(step), end_and_return(step, steps.get(f"after {kind}"))


def end_and_return(step: Row, again: Row | None) -> str:
    """Return how a replica ended, where it ended by itself, and when it was back."""
    ended = f"ended with status {step['status']} after {step['ended_after']:.0f} s; " if "status" in step else ""
    if again is None:
        return f"{ended}then unmeasured" if ended else "unmeasured"
    ready, rotation = again["ready_again_after"], again["back_after_ready"]
    return f"{ended}started again, ready after {ready:.0f} s, in rotation {rotation:.1f} s later"


def failed(step: Row) -> str:
    """Return how many requests failed, and how many of those were sent when the replica was out of rotation."""
    some = f"{step['failed']} of {step['requests']}"
    return f"{some}; {step['failed_later']} of those sent after it was out" if step["failed"] else some


def out(fault: Row) -> str:
    return "stays in" if fault["out_after"] is None else f"{fault['out_after']:.1f} s"


def lost(fault: Row) -> str:
    ran, later, elsewhere = (fault[f"lost_{how}"] for how in ("that_ran_there", "sent_there_later", "elsewhere"))
    return f"{ran} + {later} + {elsewhere} of {fault['requests']}"


def back(fault: Row) -> str:
    after = fault["first_request_after"]
    return "> 4 s" if after is None else f"{after:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
