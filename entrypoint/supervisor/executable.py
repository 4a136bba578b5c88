"""Locate programs, and the errors for those that cannot be started."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ..errors import NotExecutable, NotFound


def vllm_program(environ: Mapping[str, str]) -> str:
    """Return the vLLM to start: DSV4_VLLM, else the one next to this command, else the one on PATH."""
    if named := environ.get("DSV4_VLLM"):
        return named
    sibling = Path(sys.executable).parent / "vllm"
    return str(sibling) if sibling.exists() else "vllm"


def locate(name: str, environ: Mapping[str, str]) -> str:
    """Return the path of a program; raise NotFound (127) when there is none."""
    program = shutil.which(name, path=environ.get("PATH", os.defpath))
    if program is None and not Path(name).exists():
        raise NotFound(f"{name}: not found, neither as a path nor on PATH; install it, or correct the name.")
    return program or name


def not_executable(name: str, error: OSError) -> NotExecutable:
    """Return the error for a program that exists and cannot be started."""
    return NotExecutable(f"{name}: cannot be executed ({error.strerror}); check its mode and format.")
