"""Time and peak memory of `dsv4 explain`, as a whole process: 300 ms and 60 MiB are the budget. Run with `make bench`."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ARGV = [sys.executable, "-m", "dsv4_serve.entrypoint", "explain", "--hardware", "rtx-pro-6000"]


def test_explain_as_a_process(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> None:
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH", "HOME")}
    benchmark.pedantic(
        lambda: subprocess.run(ARGV, env=env, stdout=subprocess.DEVNULL, check=True), rounds=20, warmup_rounds=2
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    benchmark.extra_info["peak MiB"] = peak
    with capsys.disabled():
        print(f"\npeak memory {peak:.1f} MiB")
