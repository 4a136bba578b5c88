"""What the pinned vLLM starts with on a GPU, learnt from vLLM by `python -m tools.combinations`. Pure."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .schema import VERSION

SCHEME, DEVICE, CLAMP, PACKAGE, VARIABLE, PARALLEL = "scheme", "device", "clamp", "package", "variable", "parallel"
LAYOUT = "layout"
"""Kinds of reasons; `scheme` where vLLM has no kernel for the weights, and where the file names no other."""


@dataclass(frozen=True)
class Experts:
    """MoE backends for one scheme of experts on one GPU."""

    auto: Mapping[str, str] | str
    runs: Mapping[str, Sequence[str] | str]
    refused: Mapping[str, str]

    def refusal(self, backend: str, mode: str) -> str:
        """Return the kind of reason why a backend does not run in a mode of parallelism, or nothing."""
        if backend == "auto":
            return ""
        if backend not in self.runs:
            return self.refused.get(backend, SCHEME)
        modes = self.runs[backend]
        return "" if modes == "any" or mode in modes else PARALLEL

    def chosen(self, backend: str, mode: str) -> str:
        """Return the kernel that `auto` selects in a mode, or the backend itself."""
        if backend != "auto":
            return backend
        return self.auto if isinstance(self.auto, str) else self.auto[mode]


def mode(replicas: int, *, split: bool) -> str:
    """Return the name of a mode: data parallelism or not, experts split over GPUs or not."""
    return ("dp+ep" if split else "dp") if replicas > 1 else ("ep" if split else "tp")


def experts(scheme: str, capability: str) -> Experts | None:
    """Return the MoE backends for a scheme and a compute capability; None where vLLM was not asked."""
    entry = _of(_of(_table()["experts"], scheme) or {}, capability)
    return Experts(entry["auto"], entry["runs"], entry["refused"]) if entry else None


def attention(capability: str, *, v41: bool = False) -> dict[str, Any] | None:
    """
    Return the attention backends, with their KV cache formats and block sizes, and the indexer's formats.

    Of DeepSeek-V4.1, backends and formats alone.
    """
    entry: dict[str, Any] | None = _of(_table()["attention of v4.1" if v41 else "attention"], capability)
    return entry


def linear(capability: str) -> Mapping[str, str] | None:
    """Return the kinds of reasons by linear backend; a backend that is not named runs."""
    entry = _of(_table()["linear"], capability)
    return entry["refused"] if entry else None


def quantization(scheme: str) -> Mapping[str, Any] | None:
    """Return the method that vLLM takes for a scheme (`auto`), and those that it accepts for it: a list, or `any`."""
    entry: Mapping[str, Any] | None = _of(_table()["quantization"], scheme)
    return entry


def _of(folded: Mapping[str, Any], name: str) -> Any:
    """Return the entry of a name; entries of several names have them all as their key."""
    return next((entry for names, entry in folded.items() if name in names.split()), None)


@functools.cache
def _table() -> dict[str, Any]:
    path = Path(__file__).parent / f"combinations-{VERSION}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
