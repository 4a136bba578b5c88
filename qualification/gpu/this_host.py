"""What every result of a GPU host says about it: the day, the GPUs, and the versions of what ran."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("vllm", "torch", "flashinfer-python", "tilelang", "transformers")


def facts() -> dict[str, Any]:
    """Return date, hardware and versions, as result files have them."""
    return {"date": dt.datetime.now(dt.UTC).date().isoformat(), "hardware": hardware()[1], "versions": versions()}


def hardware() -> tuple[str, str]:
    """Name for file names and full description, by nvidia-smi; `cpu` without it."""
    if not shutil.which("nvidia-smi"):
        return "cpu", "no GPU"
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    name = lines[0].split(",")[0] if lines else "unknown"
    return name.removeprefix("NVIDIA ").lower().replace(" ", "-"), f"{len(lines)} x {lines[0] if lines else name}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a measurement depends on."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
