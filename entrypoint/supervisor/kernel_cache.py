"""
One cache folder for all compilers, so that the next start does not compile the same kernels again.

It is keyed by build (versions and patches), hardware and model, so that a changed key never finds a stale kernel:
DSV4_CACHE/<vLLM version>-<build>/<hardware>/<model>. Each plan that became ready leaves a note there of how long
its first start took; the next start of the same plan is a hit.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat

from ..fingerprint import fingerprint
from ..plan import TUNED_KERNELS, Plan, Setting
from . import atomic_file, provenance, state_file

VARIABLES = {
    "VLLM_CACHE_ROOT": "vllm",  # torch.compile's graphs, DeepGEMM's kernels, FlashInfer's autotuning
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "TILELANG_CACHE_DIR": "tilelang",
    "HUMMING_CACHE_DIR": "humming",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "CUTE_DSL_CACHE_DIR": "cute-dsl",
    "TRTLLM_DG_CACHE_DIR": "tensorrt-llm",  # FlashInfer's block-scaled FP8 GEMMs; below HOME otherwise
    "CUDA_CACHE_PATH": "cuda",  # the driver's own, for PTX
}
"""Variables that name a compiler's cache, and the folders that they get."""

_NO_KERNEL_DEPENDS_ON = frozenset({"host", "port", "api-key", "served-model-name", "shutdown-timeout"})
_NO_KERNEL_READS = frozenset({
    *VARIABLES, "CUDA_VISIBLE_DEVICES", "MAX_JOBS", "VLLM_ENABLE_STARTUP_PLAN", "VLLM_TRITON_JIT_WARMUP_NUM_THREADS",
})  # fmt: skip
_NOTES = "starts"


@dataclass(frozen=True)
class _Note:
    """
    What a start that became ready leaves: how long it took, when, and the seconds of its phases.

    `warm` has the phases of the last start that found its kernels.
    """

    seconds: FiniteFloat
    date: str
    phases: dict[str, FiniteFloat] = dataclasses.field(default_factory=dict)
    warm: dict[str, FiniteFloat] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class KernelCache:
    """The cache of one plan; `filled` is the note of the start that filled it, empty for a miss."""

    folder: Path
    note: Path
    filled: Mapping[str, Any]
    before: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Files of each compiler before the start (`compiled.count`)."""

    def sentence(self) -> str:
        """Return the message on whether this start finds its kernels."""
        if not self.filled:
            return f"kernel cache: miss; this start fills {self.folder}"
        return f"kernel cache: hit; filled on {self.filled['date']} by a start that took {self.filled['seconds']:.0f} s"

    def saved(self, seconds: float) -> float | None:
        """Return the seconds saved against the start that filled the cache; None at a miss."""
        return self.filled["seconds"] - seconds if self.filled else None

    @property
    def last_start(self) -> Mapping[str, float]:
        """The seconds of each phase of the last start that found its kernels; empty before the first one."""
        return self.filled.get("warm") or {}

    def keep(self, seconds: float, phases: Mapping[str, float]) -> None:
        """Leave the note of a start; if the folder cannot be written after a first one, the next is a miss too."""
        if self.filled:
            note = {**self.filled, "warm": dict(phases)}
        else:
            note = {"seconds": round(seconds, 1), "date": datetime.now(UTC).date().isoformat(), "phases": dict(phases)}
        try:
            self.note.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        atomic_file.write(self.note, json.dumps(note))


def root(environ: Mapping[str, str]) -> Path:
    """Return DSV4_CACHE, else a folder in the user's cache."""
    home = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "/nonexistent", ".cache"))
    return Path(environ.get("DSV4_CACHE") or Path(home, "dsv4"))


def build(versions: Mapping[str, str], patches: Mapping[str, Any]) -> str:
    """Return the part of the key that names the code: vLLM's version, and a hash of all versions and patches."""
    code = [(patch["sha256"], patch["state"]) for patch in patches.get("patches", [])]
    return f"{versions.get('vllm', 'unknown')}-{fingerprint(dict(versions), code)[:8]}"


def installed_folder(plan: Plan, environ: Mapping[str, str]) -> Path:
    """Return the folder of a plan's kernels, as compiled by the code that is installed here."""
    return folder_of(plan, build(provenance.versions(), provenance.patches()), environ)


def placed(plan: Plan, environ: Mapping[str, str], folder: Path) -> Plan:
    """Return the plan with each compiler's cache below `folder`, except for caches that are named already."""
    ours = {
        name: Setting(inside, "kernel cache (DSV4_CACHE)")
        for name, inside in variables(folder).items()
        if name not in plan.env and not environ.get(name)
    }
    return dataclasses.replace(plan, env={**plan.env, **ours})


def variables(folder: Path) -> dict[str, str]:
    """Return the variables that put each compiler's cache below `folder`."""
    return {name: str(folder / inside) for name, inside in VARIABLES.items()}


def folder_of(plan: Plan, build_id: str, environ: Mapping[str, str]) -> Path:
    """Return the folder of a plan's kernels, as compiled by one build."""
    names = (str(plan.choices[name].value) for name in ("hardware", "model-name") if name in plan.choices)
    return Path(root(environ), build_id, *(name.replace(os.sep, "_") for name in names))


def find(plan: Plan, folder: Path) -> KernelCache:
    """Read the note of an earlier start of the same plan."""
    path = folder / _NOTES / f"{fingerprint(_shaping(plan))}.json"
    return KernelCache(folder, path, note(path))


def note(path: Path) -> dict[str, Any]:
    """Return the note of one plan; empty where there is none."""
    found = state_file.read(path, _Note)
    return dataclasses.asdict(found) if found else {}


def _shaping(plan: Plan) -> list[str]:
    """Return the arguments and variables that a kernel may depend on."""
    flags = {name: setting for name, setting in plan.flags.items() if name not in _NO_KERNEL_DEPENDS_ON}
    env = {name: value for name, value in plan.environment().items() if name not in _NO_KERNEL_READS}
    if folder := env.get(TUNED_KERNELS):
        env[TUNED_KERNELS] = _content(Path(folder))
    return [*dataclasses.replace(plan, flags=flags).argv(), *(f"{name}={value}" for name, value in env.items())]


def _content(folder: Path) -> str:
    """Return a hash of the tables of kernels in a folder, wherever it lies: they decide what is compiled."""
    try:
        return fingerprint([(file.name, file.read_bytes().hex()) for file in sorted(folder.glob("*.json"))])
    except OSError:  # vLLM does not end a start for it either
        return str(folder)
