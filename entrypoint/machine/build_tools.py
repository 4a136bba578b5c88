"""The tools that compile kernels at run time: nvcc and ninja (FlashInfer, TileLang, DeepGEMM), cc and Python.h."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

_CUDA = "/usr/local/cuda"


def missing(env: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of the tools that are missing; ninja may come with a wheel, next to this Python."""
    path = env.get("PATH", os.defpath)
    wheels = str(Path(sys.executable).parent)
    cuda = f"{env.get('CUDA_HOME', _CUDA)}/bin"
    if not shutil.which("nvcc", path=f"{path}:{cuda}"):
        yield "nvcc"
    if not shutil.which("ninja", path=f"{path}:{wheels}"):
        yield "ninja"
    if not any(shutil.which(name, path=path) for name in (env.get("CC") or "cc", "gcc", "clang")):
        yield "cc"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        yield "Python.h"


def has_cubins() -> bool:
    """Tell whether FlashInfer's compiled kernels are installed."""
    return importlib.util.find_spec("flashinfer_cubin") is not None
