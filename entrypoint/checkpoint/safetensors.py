"""
The header of one safetensors file: which tensors it contains, and how long the file must be. No tensor data is read.

Format (safetensors): 8 bytes of header length, little-endian; the header, a JSON object of name to dtype, shape and
`data_offsets` [begin, end) counted from the header's end; the data, without holes.

Read here, not with the library safetensors: of a truncated shard, version 0.8.0 reports only "Error while
deserializing header: incomplete metadata, file not fully covered", without the file, the tensor or the missing bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST_HEADER = 100_000_000  # bytes; safetensors rejects longer ones
POINTER = b"version https://git-lfs.github.com/spec/"
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16,
    "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "F4": 4,
}  # fmt: skip

Tensor = Mapping[str, Any]
"""`dtype` (safetensors' name), `shape` (elements), `data_offsets` (bytes)."""


class _Unreadable(Exception):
    """Why a header cannot be used: a predicate of the file."""


@dataclass(frozen=True)
class Shard:
    """
    One file: its `size` and the `declared` end of its data, both in bytes, and its tensors by name.

    With a `fault` (why the header cannot be used) there are no tensors, and `declared` is 0.
    """

    file: str
    size: int
    declared: int = 0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    fault: str = ""
    pointer: bool = False
    """The file is the short text that git keeps in place of a large file."""


def raw(path: Path) -> tuple[int, bytes]:
    """Return the file's size and its first bytes up to the end of the header; OSError as open() raises it."""
    with path.open("rb") as file:
        size = path.stat().st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        return size, start + file.read(length if length <= LONGEST_HEADER else len(POINTER))


def shard(name: str, size: int, start: bytes) -> Shard:
    """Parse what `raw` returned; a header that cannot be used becomes a fault."""
    if start.startswith(POINTER):
        return Shard(name, size, fault="is a git-lfs pointer", pointer=True)
    try:
        tensors = _parsed(size, start)
        return Shard(name, size, len(start) + _data_bytes(tensors), tensors)
    except _Unreadable as fault:
        return Shard(name, size, fault=str(fault))


def _parsed(size: int, start: bytes) -> dict[str, Tensor]:
    length = int.from_bytes(start[:8], "little")
    if size < 8 or length > LONGEST_HEADER:
        raise _Unreadable("does not begin with the length of a header")
    if len(start) < 8 + length:
        raise _Unreadable(f"ends inside its header, after {size:,} of {8 + length:,} bytes")
    try:
        header = json.loads(start[8:])
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"its header is not valid JSON ({error})") from None
    if not isinstance(header, dict):
        raise _Unreadable("its header is not a JSON object")
    header.pop("__metadata__", None)
    return header


def _data_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return where the data ends; every tensor must fill its extent, and the extents the data."""
    end = filled = 0
    for name, tensor in tensors.items():
        try:
            first, last = tensor["data_offsets"]
            bits = math.prod(tensor["shape"]) * BITS.get(tensor["dtype"], 0)
            fits = first >= 0 and (bits == (last - first) * 8 or tensor["dtype"] not in BITS)
        except (KeyError, TypeError, ValueError):
            raise _Unreadable(f"its header does not describe {name!r}") from None
        if not fits:
            raise _Unreadable(f"its header gives {name!r} {last - first:,} bytes for {tensor['shape']}")
        end, filled = max(end, last), filled + last - first
    if filled != end:
        raise _Unreadable(f"its tensors fill {filled:,} of {end:,} bytes of data")
    return end
