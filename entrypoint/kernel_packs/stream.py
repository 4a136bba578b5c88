"""
Read and write the bytes of a pack: xz around the plainest form of tar.

tarfile is not used for reading: it holds the extended headers of an archive in memory, however large, and understands
links, devices and sparse files. Here a member is a regular file with a short name, or the archive is refused.
"""

from __future__ import annotations

import lzma
import tarfile
from collections.abc import Iterator
from typing import IO

from ..errors import ConfigError

BLOCK = 512
CHUNK = 1 << 20
DICTIONARY = 32 << 20
"""Of xz: near-duplicates of the driver's cache are megabytes apart. A reader needs as much memory."""
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": DICTIONARY}]
_MEMORY = 96 << 20  # bytes that a reader may need, whatever the archive asks for


def compressor(file: IO[bytes]) -> lzma.LZMAFile:
    """Return a file that compresses what is written to it."""
    return lzma.LZMAFile(file, "w", format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=_FILTERS)


def header(name: str, size: int) -> bytes:
    """Return the header of a member: no time, no owner."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT)


def padding(size: int) -> bytes:
    """Return the zeros that follow a member of `size` bytes."""
    return bytes(-size % BLOCK)


END = bytes(2 * BLOCK)


class PackReader:
    """Reads one archive from its beginning to its end; every irregularity is a ConfigError that names the archive."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        self._xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)

    def member(self) -> tuple[str, int]:
        """Return name and size of the next member; an empty name at the end of the archive."""
        block = self._exactly(BLOCK)
        if not any(block):
            self._end()
            return "", 0
        try:
            entry = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.TarError, ValueError) as error:
            raise self.refused(f"a member's header is malformed ({error})") from None
        if entry.type != tarfile.REGTYPE or entry.linkname or entry.size < 0:
            raise self.refused(f"{entry.name[:80]!r} is not a regular file")
        return entry.name, entry.size

    def content(self, size: int) -> Iterator[bytes]:
        """Yield the bytes of the member whose header was read last."""
        left = size
        while left:
            part = self._exactly(min(left, CHUNK))
            left -= len(part)
            yield part
        if any(self._exactly(-size % BLOCK)):
            raise self.refused("there is something between two members")

    def refused(self, why: str) -> ConfigError:
        """Return the error for an archive that is not accepted."""
        return ConfigError(f"{self._name} is not a valid kernel pack: {why}.")

    def _end(self) -> None:
        if any(self._exactly(BLOCK)) or self._some(1) or self._xz.unused_data or self._file.read(1):
            raise self.refused("there is something after its end")
        if not self._xz.eof:
            raise self.refused("it is cut short")

    def _exactly(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing:
            part = self._some(missing)
            if not part:
                raise self.refused("it is cut short")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _some(self, most: int) -> bytes:
        """Return up to `most` bytes, none at the end of the compressed stream or of the file."""
        try:
            while not self._xz.eof:
                fresh = self._file.read(CHUNK) if self._xz.needs_input else b""
                if self._xz.needs_input and not fresh:
                    return b""
                if part := self._xz.decompress(fresh, max_length=most):
                    return part
        except (lzma.LZMAError, EOFError) as error:
            raise self.refused(f"xz: {error}") from None
        return b""
