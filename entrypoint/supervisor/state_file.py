"""Read files of our own that outlive a process: they may have been cut, edited or replaced by something else."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from ..validation import sentence

LARGEST = 1 << 20  # bytes
log = logging.getLogger(__name__)
T = TypeVar("T")


def read(path: Path, kind: type[T]) -> T | None:
    """Return what a file holds; None where there is none, or where it is ignored because it holds something else."""
    try:
        return TypeAdapter(kind).validate_json(_regular(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        why = sentence(error)
    except OSError as error:
        why = error.strerror or str(error)
    except ValueError as error:
        why = str(error)
    log.info(f"note: {path} is ignored: {why}")
    return None


def _regular(path: Path) -> bytes:
    """Return the content of a regular file; raise ValueError for a pipe, a device or a large file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer blocks otherwise
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
    return content
