"""
The supervisor beside a real vLLM on the CPU: memory, share of a core, and `/readyz` while 200 streams run.

Budgets: 60 MiB, 1 % of a core while nothing runs, `/readyz` 5 ms at the 99th percentile. Run with `make bench`; vLLM takes
both cores of a small machine, so the latency there is that of its scheduler as much as ours.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from bench_readyz import BUDGET, ask
from replica import replica

from dsv4_serve.demo.llama import write_checkpoint

IDLE_SECONDS, STREAMS, TOKENS, REQUESTS = 60.0, 200, 1500, 1000
MEMORY, SHARE = 60 * 2**20, 0.01


def share(process: psutil.Process, seconds: float) -> float:
    """The share of a core that it takes over some seconds."""
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)


def latency(port: int) -> list[float]:
    """Seconds of REQUESTS requests, 10 ms apart, each with a connection of its own."""
    took = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        assert ask("127.0.0.1", port, "/readyz").startswith(b"HTTP/1.1 200 ")
        took.append(time.perf_counter() - began)
        time.sleep(0.01)
    return took


def test_the_supervisor_beside_200_streams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_checkpoint(tmp_path / "model")
    env = {"PROFILE": "demo", "MODEL": f"demo={model}", "MAX_NUM_SEQS": "64"}
    with replica(tmp_path / "replica", model_name="demo", **env) as running:
        running.until_ready(300)
        process = psutil.Process(running.process.pid)
        idle = share(process, IDLE_SECONDS)
        streams = [running.stream(TOKENS, f"Story {number}:") for number in range(STREAMS)]
        running.until(lambda: any(stream.began.is_set() for stream in streams), 60, "streams")
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        with multiprocessing.get_context("spawn").Pool(1) as asker:  # not among the 200 threads that read streams
            took = asker.apply(latency, (running.health_port,))
        loaded = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
        busy = sum(not stream.done for stream in streams)
        memory = process.memory_info().rss
    at = statistics.quantiles(took, n=100)
    with capsys.disabled():
        print(
            f"\nmemory {memory / 2**20:.1f} MiB; {idle:.2%} of a core idle, {loaded:.2%} under {REQUESTS} requests;"
            f" /readyz p50 {at[49] * 1e3:.2f} ms, p99 {at[98] * 1e3:.2f} ms, most {max(took) * 1e3:.1f} ms;"
            f" {busy} of {STREAMS} streams still ran at the end; load average {os.getloadavg()[0]:.1f}"
        )
    assert memory <= MEMORY
    assert idle <= SHARE
    assert at[98] <= BUDGET
