"""Programs that tests start: those of this folder as files that can be executed, and those of the machine by name."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


def environment(first: Path | str = "") -> dict[str, str]:
    """This process's environment, in which `python -m tests…`, `tools…` and `qualification…` work in any folder."""
    path = [str(first), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(part for part in path if part)}


def ends_at_once() -> dict[str, str]:
    """This process's environment for a short run of a Go program: a fifth of what kubectl costs is to collect garbage."""
    return os.environ | {"GOGC": "off"}


def executable(path: Path, module: str) -> Path:
    """Write a program to `path` that runs `python -m module` with its own arguments."""
    words = shlex.join([sys.executable, "-m", module])
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))}:$PYTHONPATH exec {words} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def argv_of(process: psutil.Process) -> list[str]:
    """The arguments of a process; none once it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def find(name: str, variable: str) -> str | None:
    """Where a program is: as the variable names it, else beside this Python, on PATH, or where servers are installed."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]
    return os.environ.get(variable) or shutil.which(name, path=os.pathsep.join(places))


def need(name: str, variable: str) -> str:
    """As `find`; skip the test where there is none."""
    found = find(name, variable)
    if found is None:
        pytest.skip(f"no {name} is installed ({variable} names one)")
    return found
