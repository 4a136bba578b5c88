"""Read files of our own that outlive a process: they may have been cut, edited or replaced by something else."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from .. import plain_file
from ..validation import sentence

log = logging.getLogger(__name__)
T = TypeVar("T")


def read(path: Path, kind: type[T]) -> T | None:
    """Return what a file holds; None where there is none, or where it is ignored because it holds something else."""
    try:
        return TypeAdapter(kind).validate_json(plain_file.read(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        why = sentence(error)
    except plain_file.NotPlain as error:
        why = f"{error.strerror}" if error.errno == errno.EISDIR else f"it is {error.strerror}"
    except OSError as error:
        why = error.strerror or str(error)
    except ValueError as error:
        why = str(error)
    log.info(f"note: {path} is ignored: {why}")
    return None
