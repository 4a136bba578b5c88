"""Print what the package logs as `dsv4: …`, or as JSON. A module of its own, because importing logging takes 10 ms."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import traceback
from types import TracebackType

from .. import json_log
from ..terminal import printable
from .output import ABOVE, LogFormat


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = "WARNING: " if record.levelno == logging.WARNING else ""
        with contextlib.suppress(OSError), ABOVE.line():  # a full disk or closed pipe loses lines but ends nothing
            print(f"dsv4: {level}{printable(record.getMessage())}", file=sys.stderr, flush=True)


class _Json(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        _write_json(record.levelname, message, **getattr(record, "fields", {}))


def to_stderr() -> None:
    """Print what the package logs at level INFO and above; as JSON, also what others log, warn and raise."""
    logger = logging.getLogger(__name__.partition(".")[0])
    logger.setLevel(logging.INFO)
    if LogFormat.json:
        logger.handlers = []
        logging.getLogger().handlers = [_Json()]
        logging.captureWarnings(capture=True)
        sys.excepthook = _log_uncaught
        threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    else:
        logger.handlers = [_Stderr()]


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    _write_json("CRITICAL", "".join(traceback.format_exception(kind, error, trace)).rstrip())


def _write_json(level: str, message: str, **fields: object) -> None:
    with contextlib.suppress(OSError):
        print(json_log.line(json_log.OURS, level, message, **fields), file=sys.stderr, flush=True)
