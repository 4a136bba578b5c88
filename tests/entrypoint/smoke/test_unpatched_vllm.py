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
TOOLS = {name for name in CHECKS if name.startswith("tool-")} - {"tool-gaps", "tool-tags", "tool-parallel"}
"""Without the three that need more than the one call which the demo's model knows."""


def test_the_faults_of_vllm_itself_are_found_and_no_others(
    vllm: ServeProcess, dsv4: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    words = ["--url", vllm.endpoint.url, "--health", "none", "--out", str(tmp_path), "--format", "json"]
    others = [word for name in CHECKS if name not in TOOLS for word in ("--skip", name)]  # those ask the patched demo
    done = dsv4("smoke", *words, *others)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {one["name"]: one["verdict"] for one in json.loads(done.stdout)["checks"] if one["name"] in TOOLS}
    assert found == {name: "failed" if name in OF_VLLM else "passed" for name in TOOLS}
