"""`dsv4 smoke` against real vLLM without our patches."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.client.local_replica import ServeProcess

pytestmark = pytest.mark.slow
OF_VLLM = {"tool-truncated", "tool-ref"}
"""Faults of vLLM 0.32.0 itself."""
UNFIT = {"needles", "tool-gaps", "tool-tags", "tool-parallel"}


def test_the_faults_of_vllm_itself_are_found_and_no_others(
    vllm: ServeProcess, dsv4: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = dsv4("smoke", "--url", vllm.endpoint.url, "--health", "none", "--out", str(tmp_path), "--format", "json")
    assert done.returncode == 1, done.stdout + done.stderr
    found = {one["name"]: one["verdict"] for one in json.loads(done.stdout)["checks"]}
    assert {name for name, verdict in found.items() if verdict == "skipped"} == UNFIT
    assert {name for name, verdict in found.items() if verdict not in ("passed", "skipped")} == OF_VLLM
