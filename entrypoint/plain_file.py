"""
The one way to open a file that somebody else wrote or named: for reading a regular file, up to a size, and JSON without
surprises; for writing nothing that would wait.

What is wrong is an OSError whose `strerror` says so, or a ValueError for JSON, as for any other file.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import IO, Any

MIB = 1 << 20


class NotPlain(OSError):
    """The file is a pipe, a device or too large; `strerror` says which."""


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file; NotPlain for another kind, without waiting for a pipe's writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError as error:  # a null byte
        raise NotPlain(errno.EINVAL, str(error), str(path)) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise NotPlain(number, "Is a directory" if stat.S_ISDIR(mode) else "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read(path: Path, mib: int = 1) -> bytes:
    """Return what a regular file of at most `mib` MiB holds."""
    with open_regular(path) as file:
        data = file.read(mib * MIB + 1)
    if len(data) > mib * MIB:
        raise NotPlain(errno.EFBIG, f"larger than {mib} MiB", str(path))
    return data


def write_text(path: Path, text: str, *, append: bool = False) -> None:
    """Write a file that the user named, or `append` to it; a pipe has to have a reader already."""
    how = os.O_APPEND if append else os.O_TRUNC
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | how
    try:
        descriptor = os.open(path, flags, 0o666)
    except ValueError as error:  # a null byte
        raise NotPlain(errno.EINVAL, str(error), str(path)) from None
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise NotPlain(error.errno, "a pipe without a reader", str(path)) from None
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)


def parse_json(data: bytes) -> Any:
    """Return what JSON text in UTF-8 holds; ValueError also for deep nesting and for halves of surrogate pairs."""
    try:
        value = json.loads(data.decode("utf-8"))
        if b"\\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    except UnicodeEncodeError:
        raise ValueError("it has half of a surrogate pair") from None
    return value
