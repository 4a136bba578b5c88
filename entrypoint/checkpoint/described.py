"""
What describes a checkpoint and is quick to read: config.json, the names in the index, the headers that matter.

The doctor reads every header (`read`). To identify a checkpoint, those of the drafter's shards and of one layer are
enough; a folder of 46 shards takes milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import plain_file
from . import safetensors
from .read import INDEX, INDEX_MIB

_SAMPLE = r"(?:mtp\.\d+\.|layers\.0\.ffn\.experts\.0\.)"
_IN_INDEX = re.compile(rf'"({_SAMPLE}[^"]*)"\s*:\s*"([^"]+)"'.encode())
_FILE = re.compile(rb':\s*"([^"/]+\.safetensors)"')
_TOTAL = re.compile(rb'"total_size"\s*:\s*(\d{1,19})')
_SMALLEST = 1024
"""Bytes: a shard below is a git-lfs pointer, an error page or the start of a download."""
_IN_HEADER = re.compile(rf'"({_SAMPLE}[^"]*)"\s*:\s*(\{{[^{{}}]*\}})'.encode())
_DTYPE = re.compile(rb'"dtype"\s*:\s*"([A-Z0-9_]+)"')
_EXTENT = re.compile(rb'"data_offsets"\s*:\s*\[\s*(\d{1,19})\s*,\s*(\d{1,19})\s*\]')


@dataclass(frozen=True)
class StoredTensor:
    """A dtype as safetensors names it and a size in bytes; empty and 0 where only the name is known."""

    dtype: str = ""
    bytes: int = 0


@dataclass(frozen=True)
class Description:
    """`tensors` are those of the drafter and of one expert."""

    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor] = field(default_factory=dict)
    whole: bool = False
    """Whether the names reach the target model's last layer: a drafter that is not named is then not there."""
    bytes: int = 0
    files: frozenset[str] = frozenset()
    missing_files: tuple[str, ...] = ()


def from_index(config: Mapping[str, Any], index: bytes, files: Mapping[str, int] | None = None) -> Description:
    """Describe a checkpoint by its config and index alone, as the Hub has them; `files` are sizes by name."""
    total = _TOTAL.search(index)
    size = sum(files.values()) if files else int(total[1]) if total else 0
    return Description(config, _names(index), _whole(config, [index]), size, frozenset(files or ()))


def folder(config: Mapping[str, Any], where: Path) -> Description:
    """Describe a folder; OSError for one that cannot be read."""
    entries = {entry.name: entry for entry in where.iterdir()}
    sizes = {name: path.stat().st_size for name, path in entries.items() if _is_shard(path)}
    index = _index(where)
    needed = _shards_of_interest(index) if index else sizes.keys()
    headers = [safetensors.raw(where / name)[1][8:] for name in sorted(needed & sizes.keys())]
    tensors = _names(index)
    for header in headers:
        tensors |= _sampled(header)
    listed = {match[1].decode("utf-8", "replace") for match in _FILE.finditer(index)}
    missing = tuple(sorted(listed - sizes.keys())) if sizes else ()
    whole = _whole(config, [index] if index else headers)
    return Description(config, tensors, whole, _size(sizes, listed, index), frozenset(entries), missing)


def _size(sizes: Mapping[str, int], listed: set[str], index: bytes) -> int:
    """Return the size of the shards, or what the index says where one is absent or a git-lfs pointer."""
    size, total = sum(sizes.values()), _TOTAL.search(index)
    incomplete = bool(sizes) and any(sizes.get(name, 0) < _SMALLEST for name in listed)
    return max(size, int(total[1])) if incomplete and total else size


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of the language model: V4.1 nests them under text_config."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _is_shard(path: Path) -> bool:
    """Tell whether it is a shard that is there; a link to nowhere is not."""
    return path.name.endswith(".safetensors") and path.exists()


def _names(index: bytes) -> dict[str, StoredTensor]:
    return {match[1].decode("utf-8", "replace"): StoredTensor() for match in _IN_INDEX.finditer(index)}


def _shards_of_interest(index: bytes) -> set[str]:
    return {match[2].decode("utf-8", "replace") for match in _IN_INDEX.finditer(index)}


def _whole(config: Mapping[str, Any], texts: list[bytes]) -> bool:
    layers = number(text_config(config), "num_hidden_layers")
    return any(f'"layers.{layers - 1}.'.encode() in text for text in texts)


def number(config: Mapping[str, Any], key: str) -> int:
    """Return a field that holds a count of layers, heads, experts or inputs; 0 where it is absent or impossible."""
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 100_000 else 0


def dspark_layers(config: Mapping[str, Any]) -> int:
    """Return the layers of a DSpark drafter, as vLLM 0.32.0 counts them: three where config.json does not say."""
    inner = text_config(config)
    declared = number(inner, "num_nextn_predict_layers") if inner is not config else 0  # V4.1 alone reads this field
    return number(inner, "n_mtp_layers") or declared or 3


def _index(where: Path) -> bytes:
    try:
        return plain_file.read(where / INDEX, INDEX_MIB)
    except FileNotFoundError:
        return b""


def _sampled(header: bytes) -> dict[str, StoredTensor]:
    """Return the tensors of a header that matter; a header that cannot be used is left to the doctor."""
    return {match[1].decode("utf-8", "replace"): _tensor(match[2]) for match in _IN_HEADER.finditer(header)}


def _tensor(entry: bytes) -> StoredTensor:
    dtype, extent = _DTYPE.search(entry), _EXTENT.search(entry)
    size = int(extent[2]) - int(extent[1]) if extent else 0
    return StoredTensor(dtype[1].decode() if dtype else "", max(0, size))
