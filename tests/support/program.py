"""Programs of this folder as files that can be executed, for whatever starts vLLM by a path."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(first: Path | str = "") -> dict[str, str]:
    """This process's environment, in which `python -m tests…`, `tools…` and `qualification…` work in any folder."""
    path = [str(first), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(part for part in path if part)}


def executable(path: Path, module: str) -> Path:
    """Write a program to `path` that runs `python -m module` with its own arguments."""
    words = shlex.join([sys.executable, "-m", module])
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))}:$PYTHONPATH exec {words} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path
