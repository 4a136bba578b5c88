"""The restart job, with `dsv4 serve` and a stand-in for vLLM: its variants, and an engine that is killed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from dsv4_serve.entrypoint.bench.kernel_prebuild import PrebuiltKernels
from qualification.gpu import full_size, run_restarts
from tests.support.program import ROOT

STAND_IN = ROOT / "tests/support/stand_in.py"


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *variants: str) -> tuple[int, list[dict[str, Any]]]:
    words = ["--out", str(folder / "out"), "--home", str(folder / "home"), "--profile", "64k", "--share", "2"]
    monkeypatch.setattr(sys, "argv", ["run_restarts", *words, *variants])
    status = run_restarts.main()
    lines = (folder / "out/restart.jsonl").read_text().splitlines()
    return status, [json.loads(line) for line in lines]


@pytest.mark.process
@pytest.mark.slow
def test_an_engine_is_killed_and_the_next_start_is_timed_from_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "vllm"
    kernel = 'mkdir -p "$TRITON_CACHE_DIR/A" && touch "$TRITON_CACHE_DIR/A/$KERNEL"'
    program.write_text(f'#!/bin/sh\n{kernel}\nexec {sys.executable} {STAND_IN} "$@"\n')
    program.chmod(0o755)
    quick = {"DSV4_GATE_TOKENS": "4", "DSV4_GATE_CONCURRENCY": "2", "DSV4_SUPERVISE_STOP_GRACE": "3"}
    host = {"HARDWARE": "cpu", "DSV4_SKIP": "profile-hardware", "DSV4_VLLM": str(program), "STAND_IN": "watches"}
    for name, value in {**quick, **host, "KERNEL": "k"}.items():
        monkeypatch.setenv(name, value)
    status, [first, back] = run(monkeypatch, tmp_path, "KERNEL=other", "kill")
    assert (status, first["variant"], back["variant"]) == (0, "KERNEL=other", "kill")
    assert "starting" in first["phases"]
    assert first["compiled"]["names"] == ["triton/A/other"]
    assert back["compiled"]["files"] == 0, "it has the variables of the start before it"
    assert 0 < back["down"] < back["back"]
    assert back["back"] >= back["seconds"]


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory of an H200 can be held, so that no start begins; kernels are compiled at once."""
    monkeypatch.setenv("HARDWARE", "h200")
    monkeypatch.setattr(full_size, "prebuilt", lambda *_: ([], PrebuiltKernels(87, 40.0)))
    monkeypatch.setattr(run_restarts, "_HOLD", "print('no memory')")


@pytest.mark.usefixtures("no_memory")
def test_kernels_are_compiled_before_the_first_start_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, tmp_path, "--prebuild", "TAKE_GIB=2")
    prebuilt, start = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (prebuilt["kernels"], start["variant"]) == (87, "TAKE_GIB=2")


@pytest.mark.usefixtures("no_memory")
def test_a_variant_that_fails_is_kept_and_the_next_one_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = run(monkeypatch, tmp_path, "TAKE_GIB=2", "TAKE_GIB=2")
    assert status == 1
    assert not capsys.readouterr().out.startswith('{"kernels"'), "nothing is compiled unasked"
    assert [(line["number"], line["failed"]) for line in lines] == [
        (number, "OSError: 2 GiB of the GPU cannot be taken") for number in range(2)
    ]


def test_memory_is_held_while_a_start_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    noted = tmp_path / "holder"
    hold = f"import os, time\nopen({str(noted)!r}, 'w').write(str(os.getpid()))\nprint('taken', flush=True)\ntime.sleep(60)"
    monkeypatch.setattr(run_restarts, "_HOLD", hold)
    with run_restarts.memory_taken("2"):
        holder = int(noted.read_text())
        os.kill(holder, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(holder, 0)


def test_settings_of_a_variant() -> None:
    assert run_restarts.settings("-") == {}
    assert run_restarts.settings("A=1,B=x=y") == {"A": "1", "B": "x=y"}


def test_what_was_kept_is_whole_after_every_step(tmp_path: Path) -> None:
    kept = full_size.Kept(tmp_path / "found.json", limit=1)
    assert json.loads(kept.file.read_text()) == {"limit": 1}
    kept.add(share=0.2)
    assert json.loads(kept.file.read_text()) == {"limit": 1, "share": 0.2}
