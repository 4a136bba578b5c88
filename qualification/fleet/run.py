"""
Fleets of simulated replicas behind a balancer: scale, and what a fault costs.

    python -m qualification.fleet.run --replicas 2 4 8 --balancer haproxy router --out qualification/results/fleet/NAME.json

A balancer is `direct` (none), `haproxy[:PROGRAM]`, `haproxies:COUNT` or `router[:FLAG=VALUE,…]`. Rows are added to the file as they are
measured; `python -m qualification.fleet.page` renews the tables in docs/results/fleet.md from all files.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from qualification.fleet import scenario
from qualification.fleet.figures import figures
from qualification.fleet.routers import router_flags
from qualification.fleet.timings import RTX_PRO_6000_TP2

MOST_LATE = 100.0
"""Milliseconds: a run whose clients were later than that in one look of a hundred is not written down."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[2, 4, 8], metavar="N")
    parser.add_argument("--balancer", nargs="+", default=["haproxy"], metavar="WORD")
    parser.add_argument("--faults", nargs="*", choices=scenario.FAULTS, default=list(scenario.FAULTS))
    parser.add_argument("--sessions", type=float, default=0.0, metavar="SHARE", help="of requests that have a session")
    parser.add_argument("--steady", type=float, default=12.0, metavar="SECONDS", help="before the first fault")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    result = read(options.out)
    for count in options.replicas:
        for balancer in options.balancer:
            faults = () if balancer == "direct" else tuple(options.faults)
            with tempfile.TemporaryDirectory() as folder:
                seen = scenario.run(
                    count,
                    balancer,
                    Path(folder),
                    steady=options.steady,
                    faults=faults,
                    sessions=options.sessions,
                    say=lambda line: print(line, file=sys.stderr, flush=True),
                )
            found = figures(seen)
            if found["steady"]["lag_ms"]["p99"] > MOST_LATE:
                print(f"left out: the clients were {found['steady']['lag_ms']['p99']:.0f} ms late", file=sys.stderr)
                continue
            name, _, variant = balancer.partition(":")
            result["rows"].append({"variant": variant if name == "router" or variant == "delay" else "", **found})
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def read(path: Path) -> dict:
    """Return the result in a file, or a new one."""
    if path.exists():
        return json.loads(path.read_text())
    return {
        "kind": "fleet",
        "date": f"{dt.datetime.now(dt.UTC):%F}",
        "hardware": f"{os.cpu_count()} CPU cores, shared by balancer, replicas and clients",
        "recording": asdict(RTX_PRO_6000_TP2),
        "router_flags": router_flags(),
        "settle": scenario.SETTLE,
        "fault_seconds": scenario.FAULT_SECONDS,
        "rows": [],
    }


if __name__ == "__main__":
    sys.exit(main())
