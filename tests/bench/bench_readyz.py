"""
Latency of `/readyz`: 5 ms at the 99th percentile is the budget. Run with `make bench`, with as much load beside it as you like.

READYZ_URL names a replica that serves already, such as http://127.0.0.1:8001/readyz; without it one is served for the
purpose, in a process of its own. Every request has a connection of its own, as kubelets and balancers ask.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

REQUESTS = 2000
BUDGET = 0.005
SERVE = """
import asyncio
from dsv4_serve.healthcheck.app import health_app
from dsv4_serve.healthcheck.server import serving
from dsv4_serve.healthcheck.state import Finding, Health

async def serve():
    health = Health(phase="ready", engine=1, generated_after=5.0, ready_after=6.0, gate=Finding(""), corruption=Finding(""))
    async with serving(health_app(health), "127.0.0.1", 0) as port:
        print(port, flush=True)
        await asyncio.Event().wait()

asyncio.run(serve())
"""


@contextlib.contextmanager
def replica() -> Iterator[tuple[str, int, str, int | None]]:
    """Host, port and path to ask, and the process that serves where it is ours."""
    if url := os.environ.get("READYZ_URL"):
        parts = urlsplit(url)
        yield parts.hostname or "127.0.0.1", parts.port or 80, parts.path or "/readyz", None
        return
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield "127.0.0.1", int(process.stdout.readline()), "/readyz", process.pid
        finally:
            process.kill()


def ask(host: str, port: int, path: str) -> bytes:
    """Return the whole answer to one request."""
    answer = b""
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        while part := connection.recv(65536):
            answer += part
    return answer


def memory(process: int) -> dict[str, float]:
    """MiB that a process holds now, and held at most."""
    status = Path(f"/proc/{process}/status").read_text()
    return {key: int(kib) / 1024 for key, kib in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status)}


def idle_share(process: int, seconds: float = 5.0) -> float:
    """Return the share of a core that a process takes while nobody asks."""

    def ticks() -> int:
        return sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))

    before = ticks()
    time.sleep(seconds)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def test_readyz_under_its_budget(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> None:
    took: list[float] = []

    def once() -> None:
        began = time.perf_counter()
        answer = ask(host, port, path)
        took.append(time.perf_counter() - began)
        assert answer.startswith(b"HTTP/1.1 200 "), answer

    with replica() as (host, port, path, process):
        benchmark.pedantic(once, rounds=REQUESTS, warmup_rounds=50)
        del took[:50]
        at = statistics.quantiles(took, n=100)
        said = f"p50 {at[49] * 1e3:.2f} ms, p99 {at[98] * 1e3:.2f} ms, most {max(took) * 1e3:.2f} ms of {len(took)}"
        if process is not None:
            held = memory(process)
            said += f"; memory {held['VmRSS']:.1f} MiB, at most {held['VmHWM']:.1f}; idle {idle_share(process):.2%} of a core"
    with capsys.disabled():
        print(f"\n/readyz: {said}")
    assert at[98] <= BUDGET
