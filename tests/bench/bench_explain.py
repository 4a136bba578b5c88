"""Time and peak memory of `dsv4 explain`, as a whole process: 300 ms and 60 MiB are the budget. Run with `make bench`."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

SECONDS, MEMORY = 0.3, 60.0  # MiB
ARGV = [sys.executable, "-m", "dsv4_serve.entrypoint", "explain", "--hardware", "rtx-pro-6000"]

# A process counts what its parent held when it was started, and this one holds much.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_explain_keeps_its_budget_as_a_whole_process(
    benchmark: BenchmarkFixture, clean: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    peak = int(subprocess.check_output([sys.executable, "-c", PEAK, *ARGV], env=clean)) / 1024
    benchmark.extra_info["peak MiB"] = peak
    with capsys.disabled():
        print(f"\npeak memory {peak:.1f} MiB")
    benchmark.pedantic(
        lambda: subprocess.run(ARGV, env=clean, stdout=subprocess.DEVNULL, check=True), rounds=20, warmup_rounds=2
    )
    assert peak < MEMORY
    assert benchmark.stats
    assert statistics.median(benchmark.stats.stats.data) < SECONDS
