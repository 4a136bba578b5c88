"""Fixtures: a program that is vLLM's stand-in for `serve` and a quick load generator for `bench`, and clean surroundings."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from tests.support.program import ROOT

STAND_IN = ROOT / "tests/support/stand_in.py"
GENERATOR = """
import json, os, sys, urllib.request
words = sys.argv[1:]
given = dict(zip(words, words[1:]))
if os.environ.get("GENERATOR") == "breaks":
    print("Traceback (most recent call last):\\nValueError: no tokenizer here")
    sys.exit(1)
batch, count, output = (int(given[name]) for name in ("--max-concurrency", "--num-prompts", "--random-output-len"))
if os.environ.get("GENERATOR") == f"breaks at {batch}":
    sys.exit("ValueError: too many")
body = {"model": given["--model"], "prompt": "t5", "max_tokens": output}
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ.get("OPENAI_API_KEY", "")}
urllib.request.urlopen(urllib.request.Request(given["--base-url"] + "/v1/completions", json.dumps(body).encode(), headers))
saved = {
    "completed": count - (os.environ.get("GENERATOR") == "loses"), "output_throughput": 100.0 * batch, "duration": 1.5,
    "p50_tpot_ms": 10.0, "p99_tpot_ms": 11.0, "p50_ttft_ms": 20.0, "p99_ttft_ms": 30.0,
    "spec_decode_draft_tokens": 100, "spec_decode_accepted_tokens": 89, "argv": words,
    "key": os.environ.get("OPENAI_API_KEY", ""), "request_goodput": count / 2 / 1.5 if "--goodput" in words else None,
}
with open(os.path.join(given["--result-dir"], given["--result-filename"]), "w") as file:
    json.dump(saved, file)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program with the commands `serve` and `bench serve`."""
    generator = tmp_path / "generator.py"
    generator.write_text(GENERATOR, encoding="utf-8")
    path = tmp_path / "vllm"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = serve ] && exec {sys.executable} {STAND_IN} "$@"\n'
        f'shift 2\nexec {sys.executable} {generator} "$@"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def environ(tmp_path: Path, program: Path) -> dict[str, str]:
    """An environment with that program, and places of its own for everything that is kept."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LC_ALL") if name in os.environ}
    quick = {"DSV4_GATE_TOKENS": "4", "DSV4_GATE_CONCURRENCY": "2", "DSV4_SUPERVISE_STOP_GRACE": "3"}
    return {**kept, **quick, "HOME": str(tmp_path), "DSV4_CACHE": str(tmp_path / "cache"), "DSV4_VLLM": str(program)}


@pytest.fixture
def demo_argv(tmp_path: Path) -> list[str]:
    """Words of `dsv4 serve` for the demo profile."""
    return ["--profile", "demo", "--hardware", "cpu", "--model", f"demo={write_checkpoint(tmp_path / 'model')}"]
