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
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import plain_file

LONGEST_HEADER = 100_000_000  # bytes; safetensors rejects longer ones
_TOO_LARGE = 1 << 64
_SURROGATE = re.compile("[\ud800-\udfff]")
POINTER = b"version https://git-lfs.github.com/spec/"
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""The dtypes of safetensors 0.8.0."""

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
    with plain_file.open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
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
    if start[8:9] != b"{":
        raise _Unreadable("its header is not a JSON object")
    try:
        header = json.loads(start[8:].decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise _Unreadable(f"its header is not valid JSON ({why})") from None
    metadata = header.pop("__metadata__", None)
    if metadata is not None and (type(metadata) is not dict or {*map(type, metadata.values())} - {str}):
        raise _Unreadable("its __metadata__ is not a table of strings")
    if b"\\ud" in start.lower() and any(_SURROGATE.search(name) for name in header):
        raise _Unreadable("its header names a tensor with half of a surrogate pair")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice!r} is there twice")
    return table


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _data_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return where the data ends; every tensor must fill its extent, and the extents the data, without a gap."""
    extents = []
    for name, tensor in tensors.items():
        try:
            dtype, shape, (first, last) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
            bits = BITS.get(dtype)
        except (KeyError, TypeError, ValueError):
            raise _Unreadable(f"its header does not describe {name!r}") from None
        if type(shape) is not list or not all(_is_size(number) for number in (*shape, first, last)):
            raise _Unreadable(f"its header gives {name!r} a shape or offsets that are not whole numbers from 0 up")
        if bits is None:
            raise _Unreadable(f"its header gives {name!r} the unknown dtype {dtype!r}")
        if math.prod(shape) * bits != (last - first) * 8:
            raise _Unreadable(f"its header gives {name!r} {last - first:,} bytes for {shape}")
        extents.append((first, last, name))
    end = 0
    for first, last, name in sorted(extents):
        if first != end:
            what = "overlaps the tensor before it" if first < end else "leaves a gap before it"
            raise _Unreadable(f"in its header, {name!r} {what} (byte {first:,}, not {end:,})")
        end = last
    return end


def _is_size(number: Any) -> bool:
    return type(number) is int and 0 <= number < _TOO_LARGE
