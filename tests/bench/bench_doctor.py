"""
Time of `dsv4 doctor` as a whole process, without an all-reduce. Run with `make bench`.

Budgets: 300 ms without a checkpoint, and 1 s with one of 35 shards (bench_doctor_checkpoint.py reads that one in process).
CPU time is printed beside the wall clock, which a busy machine stretches.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dsv4_serve.demo.llama import write_checkpoint

DOCTOR = [sys.executable, "-m", "dsv4_serve.entrypoint", "doctor", "--no-collective", "--format", "json"]


def cpu_seconds() -> float:
    """Seconds that children which have ended took, user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(benchmark: BenchmarkFixture, clean: dict[str, str], capsys: pytest.CaptureFixture[str], *words: str) -> None:
    def look() -> None:
        done = subprocess.run([*DOCTOR, *words], env=clean, stdout=subprocess.DEVNULL, check=False)
        assert done.returncode in (0, 69)  # 69: what this machine lacks

    rounds, before = 10, cpu_seconds()
    benchmark.pedantic(look, rounds=rounds)
    spent = (cpu_seconds() - before) / rounds
    benchmark.extra_info["CPU seconds"] = spent
    with capsys.disabled():
        print(f"\n{spent:.2f} s of CPU a process")


def test_doctor_without_a_checkpoint(
    benchmark: BenchmarkFixture, clean: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    timed(benchmark, clean, capsys, "--hardware", "h200")


def test_doctor_of_the_demo(
    benchmark: BenchmarkFixture, clean: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    timed(benchmark, clean, capsys, "--profile", "demo", "--model", f"demo={write_checkpoint(tmp_path / 'demo')}")
