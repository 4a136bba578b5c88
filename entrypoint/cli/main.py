"""The command `dsv4`. Other imports stand in functions, so that Ctrl-C while they load is no traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; a user's mistake becomes one sentence on stderr."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        from ..exit_status import ExitStatus

        return ExitStatus.INTERRUPTED


def _run(words: list[str]) -> int:
    from ..errors import UserError
    from ..exit_status import ExitStatus
    from .output import say

    try:
        try:
            return _dispatch(words)
        finally:
            sys.stdout.flush()
    except UserError as error:
        say(str(error))
        return error.exit_status
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would be written at the end
        if error.errno == errno.EPIPE:
            return ExitStatus.PIPE_CLOSED
        say(f"standard output cannot be written ({error.strerror}).")
        return ExitStatus.HOST


def _dispatch(words: list[str]) -> int:
    """A leading flag means `serve`; a first word that is no command is a program, or a mistake."""
    from . import parser

    if not words or words[0] in ("-h", "--help"):
        words = ["help"]
    elif words[0] in ("-V", "--version"):
        words = ["version"]
    elif words[0].startswith("-"):
        words = ["serve", *words]
    if words[0] not in parser.names():
        from . import program

        return program.run_or_refuse(words)
    options, flags = parser.parse(words)
    status: int = options.run(options, flags)
    return status
