"""`dsv4 smoke` against real vLLM without our patches."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.client.local_replica import ServeProcess
from dsv4_serve.entrypoint.smoke.run import CHECKS

pytestmark = pytest.mark.slow
OF_VLLM = {"tool-truncated", "tool-ref"}
"""Faults of vLLM 0.32.0 itself."""
UNFIT = {"tool-gaps", "tool-tags", "tool-parallel"}
"""The demo's model knows one call only."""
TOOLS = {name for name in CHECKS if name.startswith("tool-")}


def test_the_faults_of_vllm_itself_are_found_and_no_others(
    vllm: ServeProcess, dsv4: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    words = ["--url", vllm.endpoint.url, "--health", "none", "--out", str(tmp_path), "--format", "json"]
    others = [word for name in CHECKS if name not in TOOLS for word in ("--skip", name)]  # those ask the patched demo
    done = dsv4("smoke", *words, *others)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {one["name"]: one["verdict"] for one in json.loads(done.stdout)["checks"] if one["name"] in TOOLS}
    assert {name for name, verdict in found.items() if verdict == "skipped"} == UNFIT
    assert {name for name, verdict in found.items() if verdict not in ("passed", "skipped")} == OF_VLLM
