"""Time to read and check a checkpoint as large as the published NVFP4 one; 1 s is the budget. Run with `make bench`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dsv4_serve.entrypoint.checkpoint import read
from dsv4_serve.entrypoint.doctor.checkpoint_requirements import CheckpointRequirements
from dsv4_serve.entrypoint.doctor.checks.checkpoint import examine

SERVED = CheckpointRequirements("nvfp4", "deepseek-v4-tiny", "nvfp4", "bf16", "h200", 2, method="mtp", draft_tokens=1)


def test_reading_and_checking_a_large_checkpoint(
    benchmark: BenchmarkFixture, large: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def look() -> tuple[int, list[Any]]:
        seen = read.read(large)
        return len(seen.tensors), list(examine(seen, SERVED))

    count, problems = benchmark.pedantic(look, rounds=10, warmup_rounds=1)
    assert problems == []
    begin = time.process_time()
    look()
    spent = time.process_time() - begin
    benchmark.extra_info.update({"tensors": count, "CPU seconds": spent})
    with capsys.disabled():
        print(f"\n{count:,} tensors in {len([*large.glob('*.safetensors')])} shards, {spent:.2f} s of CPU")
