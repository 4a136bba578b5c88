"""Print what the package logs as `dsv4: …`. A module of its own, because importing logging takes 10 ms."""

from __future__ import annotations

import contextlib
import logging
import sys

from ..terminal import printable


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = "WARNING: " if record.levelno == logging.WARNING else ""
        with contextlib.suppress(OSError):  # a full disk or a closed pipe loses lines but must not end the command
            print(f"dsv4: {level}{printable(record.getMessage())}", file=sys.stderr, flush=True)


def to_stderr() -> None:
    """Print what the package logs at level INFO and above."""
    logger = logging.getLogger(__name__.partition(".")[0])
    logger.setLevel(logging.INFO)
    logger.handlers = [_Stderr()]
