"""`dsv4 qualify` as people type it, on the real vLLM and this CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running_demo import PATIENT, SILENT

CPU_INFO = Path("/proc/cpuinfo")
COMMAND = (sys.executable, "-m", "dsv4_serve.entrypoint", "qualify", "--profile", "demo-v4", "--max-model-len", "1024")


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.skipif(
    not CPU_INFO.exists() or "avx512_bf16" not in CPU_INFO.read_text(),
    reason="vLLM's CPU wheel has DeepSeek-V4's kernels for x86 with AVX512_BF16 only",
)
def test_a_sound_machine_is_qualified(tmp_path: Path) -> None:
    names = ("host", "known-answers", "load", "depth")
    stages = [word for name in names for word in ("--only", name)]
    argv = [*stages, "--minutes", "15", "--out", str(tmp_path), "--share", str(tmp_path / "share.json")]
    run = subprocess.run(
        [*COMMAND, *argv],
        env={**os.environ, **PATIENT, **SILENT, "DSV4_GATE_TOKENS": "4", "DSV4_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    assert run.stdout.splitlines()[-1].startswith("demo-v4-cpu-demo-v4: the stages of --only passed (4 passed in ")
    [result] = (tmp_path / "qualify").glob("*.json")
    body = json.loads(result.read_text())
    figures = {stage["name"]: stage["figures"] for stage in body["checks"]}
    assert figures["known-answers"]["right"] == figures["known-answers"]["asked"] == 32
    assert figures["known-answers"]["accepted"] >= 0.95 * figures["known-answers"]["drafted"] > 0
    assert figures["load"]["largest_logprob_difference"] == 0
    assert max(one["tokens"] for one in figures["depth"]["soundings"]) > 600
    assert {patch["state"] for patch in body["replica"]["patches"]["patches"]} == {"applied"}
    assert result.with_suffix(".html").stat().st_size > 3000
    assert str(tmp_path) not in (tmp_path / "share.json").read_text()
    assert not list((tmp_path / "cache/qualify").glob("unfinished-*"))
