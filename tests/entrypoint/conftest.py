"""Fixtures: a clean environment, the command as a process, folders of profiles."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import command

CLEAN = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def dsv4(tmp_path: Path) -> Run:
    """`dsv4 ARGS…` as a process, with a record of failures of its own; keywords are environment variables."""

    def run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        keep = {k: v for k, v in os.environ.items() if k in ("PYTHONPATH", "COVERAGE_PROCESS_START", "TMPDIR")}
        return command.run(*argv, env=CLEAN | keep | {"DSV4_RUN_DIR": str(tmp_path / "run")} | env)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder of TOML files, for DSV4_PROFILES; keys are relative paths."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / "mounted" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path / "mounted"

    return write
