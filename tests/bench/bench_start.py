"""
Time from the start of `dsv4 serve` to the start of vLLM: resolving, the doctor, the health server; 1 s is the budget.

A script stands in for vLLM and notes when it was begun. Run with `make bench`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from dsv4_serve.demo.llama import write_checkpoint

BUDGET, ROUNDS = 1.0, 10
SERVE = [sys.executable, "-m", "dsv4_serve.entrypoint", "serve"]
LACKING = (
    "driver-answers,container-gpus,shared-memory,expert-targets-need-a-patch,bf16-draft-needs-a-patch,"
    "architecture-matches"
)
"""What a plan for GPUs lacks here: they, and a vLLM with the patches; the large checkpoint has narrow layers."""


def seconds(folder: Path, clean: Mapping[str, str], settings: Mapping[str, str]) -> list[float]:
    """Seconds until vLLM began, in each of ROUNDS starts that know nothing of each other."""
    program, began = folder / "vllm", folder / "began"
    program.write_text(f"#!/bin/sh\ndate +%s.%N > {began}\nexit 1\n")
    program.chmod(0o755)
    took = []
    for number in range(ROUNDS):
        ours = {"DSV4_VLLM": str(program), "DSV4_RUN_DIR": str(folder / f"run-{number}")}
        ours |= {"DSV4_HEALTH_PORT": "0", "PORT": "0", "DSV4_CACHE": str(folder / "cache")}
        at = time.time()
        done = subprocess.run(SERVE, env={**clean, **ours, **settings}, capture_output=True, text=True, check=False)
        assert began.exists(), done.stderr
        took.append(float(began.read_text()) - at)
        began.unlink()
    return took


def say(capsys: pytest.CaptureFixture[str], what: str, took: list[float]) -> None:
    with capsys.disabled():
        print(f"\n{what}: vLLM began after {statistics.median(took):.2f} s, at most {max(took):.2f} s")


def test_vllm_begins_within_the_budget(
    clean: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_checkpoint(tmp_path / "model")
    took = seconds(tmp_path, clean, {"PROFILE": "demo", "MODEL": f"demo={model}"})
    say(capsys, "demo", took)
    assert statistics.median(took) < BUDGET


def test_vllm_begins_within_the_budget_with_35_shards(
    clean: dict[str, str], large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"PROFILE": "64k", "MODEL": f"nvfp4={large}", "HARDWARE": "h200", "TP": "2", "DSV4_SKIP": LACKING}
    took = seconds(tmp_path, clean, settings)
    say(capsys, "35 shards", took)
    assert statistics.median(took) < BUDGET
