"""What a compiled kernel takes of a processor, read from its file: registers and stack of a thread."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

REGISTERS, FRAME, SIZED = 0x2F, 0x11, 0x04
"""Attributes of `.nv.info`, and the form of those that say their size."""
SECTION = "<IIQQQQIIQQ"


@dataclass(frozen=True)
class Use:
    """Registers of a thread, and bytes of its stack: more than none means that registers did not suffice."""

    registers: int
    stack: int


def use(file: Path) -> Use:
    """Return what the one kernel of a file uses; ValueError where it does not say so."""
    found = attributes(section(file.read_bytes(), ".nv.info"))
    if REGISTERS not in found:
        raise ValueError(f"{file} does not say how many registers its kernel uses")
    return Use(found[REGISTERS], found.get(FRAME, 0))


def section(data: bytes, wanted: str) -> bytes:
    """Return a section of an ELF file by name; nothing where there is none."""
    if data[:4] != b"\x7fELF" or data[4] != 2:
        raise ValueError("not a 64-bit ELF file")
    start = struct.unpack_from("<Q", data, 40)[0]
    size, count, names = struct.unpack_from("<HHH", data, 58)
    table = [struct.unpack_from(SECTION, data, start + place * size) for place in range(count)]
    texts = data[table[names][4] : table[names][4] + table[names][5]]
    for one in table:
        if texts[one[0] : texts.index(b"\0", one[0])].decode() == wanted:
            return data[one[4] : one[4] + one[5]]
    return b""


def attributes(info: bytes) -> dict[int, int]:
    """Return the largest value of each attribute that has one for a function."""
    found: dict[int, int] = {}
    at = 0
    while at + 4 <= len(info):
        form, name, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == SIZED:
            if size == 8:
                found[name] = max(found.get(name, 0), struct.unpack_from("<II", info, at)[1])
            at += size
    return found
