"""
What HAProxy costs before fleets that do nothing, and whether two of them agree about sessions.

    python -m qualification.fleet.limits --replicas 64 256 500 520 --binary /usr/sbin/haproxy --out qualification/results/fleet/limits.json
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from qualification.fleet.fronts import front
from qualification.fleet.replicas import Fleet, fleet
from qualification.fleet.scenario import KEY
from qualification.fleet.standing import Front

IDLE, SESSIONS = 10.0, 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", required=True, metavar="N")
    parser.add_argument("--binary", default="", metavar="PROGRAM")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    result = (
        json.loads(options.out.read_text())
        if options.out.exists()
        else {
            "kind": "fleet-limits",
            "date": f"{dt.datetime.now(dt.UTC):%F}",
            "hardware": f"{os.cpu_count()} CPU cores, shared by balancer and replicas",
            "idle": [],
            "two": [],
        }
    )
    for count in options.replicas:
        with tempfile.TemporaryDirectory() as folder, fleet(count) as made:
            result["idle"].append(idle(made, options.binary, Path(folder)))
    with tempfile.TemporaryDirectory() as folder, fleet(8) as made:
        result["two"].append(two(made, options.binary, Path(folder)))
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def idle(made: Fleet, binary: str, folder: Path) -> dict[str, Any]:
    """Return how many of the replicas HAProxy finds by name, and what it costs while nobody asks."""
    with front(f"haproxy:{binary}", made.addresses, made.port, made.health_port, folder) as running:
        found = settled(running, len(made.addresses))
        cpu, at = running.cpu_seconds(), time.monotonic()
        time.sleep(IDLE)
        ended = time.monotonic()
        cores = (running.cpu_seconds() - cpu) / (ended - at)
        text = metrics(running)
        made.tell("report", folder / "log.json")
        checks = sum(at <= when < ended for when, _ in json.loads((folder / "log.json").read_text())["checks"])
        return {
            "front": running.version,
            "replicas": len(made.addresses),
            "found": found,
            "cores": round(cores, 3),
            "mib": round(running.memory() / 2**20),
            "checks_per_second": round(checks / (ended - at), 1),
            "metrics_bytes": len(text),
            "samples": sum(bool(line) and not line.startswith("#") for line in text.splitlines()),
        }


def settled(running: Front, expected: int) -> int:
    """Return how many replicas are up when that number stands still."""
    found, since = 0, time.monotonic()
    while found < expected and time.monotonic() - since < 10:
        now = len(running.up())
        if now != found:
            found, since = now, time.monotonic()
        time.sleep(0.5)
    return found


def metrics(running: Front) -> str:
    url = f"http://127.0.0.1:{running.status_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def two(made: Fleet, binary: str, folder: Path) -> dict[str, Any]:
    """
    Return how many of so many sessions two HAProxies before the same replicas send to the same one.

    One has found all replicas at once, the other half of them later, as after a scale-out.
    """
    ports, program = (made.port, made.health_port), f"haproxy:{binary}"
    half = len(made.addresses) // 2
    with (
        front(program, made.addresses, *ports, folder / "one") as one,
        front(program, made.addresses[half:], *ports, folder / "other") as other,
    ):
        settled(other, half)
        other.names[:] = made.addresses
        for running in (one, other):
            settled(running, len(made.addresses))
        for number in range(SESSIONS):
            for place, running in enumerate((one, other)):
                ask(running, 2 * number + place, f"session {number}")
        version = one.version
    made.tell("report", folder / "log.json")
    replica = {number: where for number, _, where, _ in json.loads((folder / "log.json").read_text())["arrivals"]}
    same = sum(replica[2 * number] == replica[2 * number + 1] for number in range(SESSIONS))
    return {"front": version, "replicas": len(made.addresses), "sessions": SESSIONS, "same": same}


def ask(running: Front, number: int, session: str) -> None:
    host, port = running.where()
    content = f"request={number} sent={time.monotonic_ns()}"
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1, "stream": True}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "X-Session-ID": session}
    url = f"http://{host}:{port}/v1/chat/completions"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=30).read()


if __name__ == "__main__":
    sys.exit(main())
