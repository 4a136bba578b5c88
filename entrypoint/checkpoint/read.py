"""Read what describes a folder of weights: config.json, the index and every shard's header, but no tensor data."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import plain_file
from . import safetensors
from .safetensors import Shard, Tensor

_UNFINISHED = ("*.safetensors.part", ".cache/huggingface/download/*.incomplete")
INDEX_MIB = 256
INDEX = "model.safetensors.index.json"  # the one name that vLLM looks for


@dataclass(frozen=True)
class Document:
    """A JSON object in a file; `value` is empty if the file is `absent` or has a `fault` (a predicate of the file)."""

    value: Mapping[str, Any]
    absent: bool = False
    fault: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A folder of weights; `files` are the names in it, `shards` its safetensors files by name."""

    folder: Path
    files: frozenset[str]
    config: Document
    index: Document
    shards: Mapping[str, Shard]
    unfinished: int = 0
    """Files of an unfinished download, ours or huggingface_hub's."""
    unreadable: str = ""
    """Why the folder cannot be listed."""

    @cached_property
    def weight_map(self) -> Mapping[str, str]:
        """The index: file by tensor name; empty without an index."""
        weight_map = self.index.value.get("weight_map")
        if isinstance(weight_map, dict) and set(map(type, weight_map.values())) == {str}:
            return weight_map
        return {}

    @cached_property
    def listed(self) -> frozenset[str]:
        """The files that vLLM loads: those that the index names, or every one when there is no index."""
        return frozenset(self.weight_map.values()) if self.weight_map else frozenset(self.shards)

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor that vLLM would load, by name."""
        tensors: dict[str, Tensor] = {}
        for name in sorted(self.listed & self.shards.keys()):
            tensors.update(self.shards[name].tensors)
        return tensors

    @cached_property
    def draft_tensors(self) -> tuple[str, ...]:
        """The names under `mtp.`: an MTP layer, or a DSpark drafter."""
        return tuple(name for name in self.tensors if name.startswith("mtp."))

    @property
    def is_deepseek_v4(self) -> bool:
        """Whether config.json names the architecture that the layout checks know."""
        return self.config.value.get("model_type") == "deepseek_v4"

    @property
    def is_legible(self) -> bool:
        """Whether every tensor is known by name: a missing one is then missing, not unread."""
        readable = not any(shard.fault for shard in self.shards.values())
        return bool(self.tensors) and readable and not self.index.fault and self.listed <= self.shards.keys()

    def dtype(self, name: str) -> str:
        """Return a tensor's dtype as safetensors names it; empty for a tensor that is not there."""
        return str(self.tensors[name]["dtype"]) if name in self.tensors else ""


def read(folder: Path) -> Checkpoint:
    """Read a folder of weights; its faults become data. OSError for a folder that cannot be listed."""
    files = frozenset(entry.name for entry in folder.iterdir())
    names = sorted(name for name in files if name.endswith(".safetensors"))
    with _without_collection(), ThreadPoolExecutor(8) as pool:  # threads for folders on a network
        shards = {name: _shard(name, start) for name, start in zip(names, pool.map(_raw(folder), names), strict=True)}
        return Checkpoint(
            folder,
            files,
            _document(folder / "config.json"),
            _document(folder / INDEX),
            shards,
            sum(1 for pattern in _UNFINISHED for _ in folder.glob(pattern)),
        )


def _raw(folder: Path) -> Any:
    def read_start(name: str) -> tuple[int, bytes] | OSError:
        try:
            return safetensors.raw(folder / name)
        except OSError as error:
            return error

    return read_start


def _shard(name: str, start: tuple[int, bytes] | OSError) -> Shard:
    if isinstance(start, OSError):
        return Shard(name, 0, fault=f"cannot be read ({start.strerror})")
    return safetensors.shard(name, *start)


def _document(path: Path) -> Document:
    try:
        data = plain_file.read(path, INDEX_MIB)
    except FileNotFoundError:
        return Document({}, absent=True)
    except OSError as error:
        return Document({}, fault=f"cannot be read ({error.strerror})")
    if data.startswith(safetensors.POINTER):
        return Document({}, fault="is a git-lfs pointer")
    try:
        value = plain_file.parse_json(data)
    except ValueError as error:
        return Document({}, fault=f"is not valid JSON ({error})")
    return Document(value) if isinstance(value, dict) else Document({}, fault="does not contain a JSON object")


@contextmanager
def _without_collection() -> Iterator[None]:
    """Pause the cycle collector, which scans the growing headers repeatedly in vain (0.34 s, without it 0.13 s)."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
