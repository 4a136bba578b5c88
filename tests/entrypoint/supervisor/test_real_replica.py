"""Commands that ask a replica, on real vLLM: the demo on this CPU, with its health server, started once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsv4_serve.demo import llama, server
from dsv4_serve.entrypoint.bench import load
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.client.local_replica import ServeProcess

pytestmark = pytest.mark.slow
UNFIT = {"needles", "tool-gaps", "tool-tags", "tool-parallel"}
OF_VLLM = {"tool-truncated", "tool-ref"}
"""Faults of vLLM 0.32.0 itself, which this replica runs without our patches."""


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("demo")
    model = llama.write_checkpoint(folder / "model")
    with server.serving("demo", model, local_replica.free_port(), folder / "log") as running:
        for _ in running.until_ready(300, 5):
            pass
        yield running


@pytest.fixture
def where(replica: ServeProcess) -> list[str]:
    assert replica.endpoint.health
    return ["--url", replica.endpoint.url, "--health", replica.endpoint.health]


def test_smoke_finds_the_faults_of_unpatched_vllm_and_skips_what_the_demo_cannot_do(
    dsv4: Callable[..., subprocess.CompletedProcess[str]], where: list[str], tmp_path: Path
) -> None:
    done = dsv4("smoke", *where, "--out", str(tmp_path), "--format", "json")
    assert done.returncode == 1, done.stdout + done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    assert {name for name, one in found.items() if one["verdict"] == "skipped"} == UNFIT
    assert {name for name, one in found.items() if one["verdict"] not in ("passed", "skipped")} == OF_VLLM
    assert "100% of tokens agree between answers alone and 4 at once" in found["parallel"]["seen"]
    prose = found["acceptance"]["figures"]["prose"]
    assert prose["accepted"] > 0.9 * prose["drafted"]
    assert sum(one["seconds"] for one in found.values()) < 30
    (result,) = (tmp_path / "smoke").iterdir()
    assert json.loads(result.read_text())["replica"]["versions"]["vllm"]


def test_bench_measures_each_batch_and_keeps_a_result(where: list[str], tmp_path: Path) -> None:
    environ = load.program_in({name: value for name, value in os.environ.items() if not name.startswith("DSV4_")})
    small = ["--batch", "1", "4", "--input", "16", "--output", "8", "--requests-per-batch", "2"]
    argv = [sys.executable, "-m", "dsv4_serve.entrypoint", "bench", *small, *where]
    done = subprocess.run(argv, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (result,) = (tmp_path / "qualification" / "bench").iterdir()
    rows = json.loads(result.read_text())["rows"]
    assert [row["batch"] for row in rows] == [1, 4]
    assert all(row["output_tokens_per_second"] > 0 for row in rows)
