"""
`/readyz` of a running replica while 200 streams run: latency, and what the supervisor takes.

    python -m qualification.gpu.readyz --url http://127.0.0.1:8000 --health http://127.0.0.1:8001 --supervisor PID --out FILE
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

STREAMS, TOKENS, REQUESTS, PAUSE = 200, 512, 1000, 0.01


def ask(health: str) -> list[float]:
    """Seconds of REQUESTS requests, PAUSE apart, each with a connection of its own, as kubelets and balancers ask."""
    parts, took = urlsplit(health), []
    line = f"GET /readyz HTTP/1.1\r\nHost: {parts.hostname}\r\nConnection: close\r\n\r\n".encode()
    for _ in range(REQUESTS):
        began, answer = time.perf_counter(), b""
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=10) as connection:
            connection.sendall(line)
            while part := connection.recv(65536):
                answer += part
        took.append(time.perf_counter() - began)
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
        time.sleep(PAUSE)
    return took


def processor(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


async def stream(client: httpx.AsyncClient, url: str, model: str, number: int) -> None:
    body = {
        "model": model,
        "prompt": f"t{number + 10} t11 t12",
        "max_tokens": TOKENS,
        "stream": True,
        "ignore_eos": True,
    }
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        async for _ in answer.aiter_bytes():
            pass


async def measure(url: str, health: str, supervisor: int) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=STREAMS), trust_env=False) as client:
        model = (await client.get(f"{url}/v1/models")).json()["data"][0]["id"]
        streams = [asyncio.create_task(stream(client, url, model, number)) for number in range(STREAMS)]
        await asyncio.sleep(3)
        before, began = processor(supervisor), time.monotonic()
        with multiprocessing.get_context("spawn").Pool(1) as asker:
            took = await asyncio.to_thread(asker.apply, ask, (health,))
        seconds = time.monotonic() - began
        running = sum(not one.done() for one in streams)
        share = (processor(supervisor) - before) / seconds
        for one in streams:
            one.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    at = statistics.quantiles(took, n=100)
    status = Path(f"/proc/{supervisor}/status").read_text()
    return {
        "streams": STREAMS,
        "running_at_the_end": running,
        "requests": REQUESTS,
        "p50_ms": round(at[49] * 1e3, 2),
        "p99_ms": round(at[98] * 1e3, 2),
        "most_ms": round(max(took) * 1e3, 2),
        "supervisor_core_share": round(share, 4),
        "supervisor_rss_mib": round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1),
        "cores": len(os.sched_getaffinity(0)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Latency of /readyz while streams run.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--health", required=True)
    parser.add_argument("--supervisor", type=int, required=True, help="process id of `dsv4 serve`")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    found = asyncio.run(measure(options.url, options.health, options.supervisor))
    Path(options.out).write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
