"""The command `dsv4`. Other imports are inside functions, so that Ctrl-C while they load prints no traceback."""

from __future__ import annotations

import errno
import os
import sys

_CANNOT_WRITE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_HERE = __name__.removesuffix(".main")
_SPEAKERS = (_HERE, _HERE.replace("entrypoint.cli", "patcher.cli"))
"""The modules that print."""


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit status; a user's mistake becomes one sentence on stderr."""
    command = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv is None and _serves(command):
            from .. import early_signals

            early_signals.catch()
        _open_closed_streams()
        _take_any_character()
        return _run(command)
    except KeyboardInterrupt:
        from ..exit_status import ExitStatus

        return ExitStatus.INTERRUPTED


def _serves(argv: list[str]) -> bool:
    """Tell whether a command line starts a replica; a leading flag means `serve`."""
    return bool(argv) and (argv[0] == "serve" or _is_flag(argv[0]))


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word not in ("-h", "--help", "-V", "--version")


def _open_closed_streams() -> None:
    """Put /dev/null in the place of closed standard streams: the next file to be opened would take their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is the closed stream's
            setattr(sys, name, os.fdopen(null, mode, encoding="utf-8", closefd=False))


def _take_any_character() -> None:
    """Print what the locale's encoding lacks, such as ± in ASCII, as an escape."""
    import io

    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(argv: list[str]) -> int:
    from ..errors import UserError, of_file
    from ..exit_status import ExitStatus
    from .output import LogFormat, print_message, print_traceback

    LogFormat.json = _serves(argv) and "--dry-run" not in argv and os.environ.get("DSV4_LOG_FORMAT") == "json"
    try:
        try:
            return _dispatch(argv)
        finally:
            sys.stdout.flush()
    except UserError as error:
        print_message(str(error), "ERROR", exit_status=int(error.exit_status))
        return error.exit_status
    except Exception as error:
        if unwritten := _of_stdout(error):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would write the rest at exit
            if unwritten.errno == errno.EPIPE:
                return ExitStatus.PIPE_CLOSED
            print_message(f"cannot write to standard output ({unwritten.strerror}).")
            return ExitStatus.HOST
        if known := of_file(error):
            print_message(str(known), "ERROR", exit_status=int(known.exit_status))
            return known.exit_status
        print_traceback(error)
        return ExitStatus.INTERNAL_ERROR
    finally:
        _give_up_stderr()


def _of_stdout(error: Exception) -> OSError | None:
    """Return an error of writing standard output: files are written by other rooms than those that print."""
    if not isinstance(error, OSError) or error.filename is not None or error.errno not in _CANNOT_WRITE:
        return None
    step = error.__traceback__
    while step and step.tb_next:
        step = step.tb_next
    return error if step and step.tb_frame.f_globals["__name__"].startswith(_SPEAKERS) else None


def _give_up_stderr() -> None:
    """Discard what standard error still holds and cannot be written: at its exit, Python would end with 120 for it."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _dispatch(argv: list[str]) -> int:
    """Run a command; a first word that names none may be a program."""
    from . import parser

    argv = _with_command(argv)
    if argv[0] not in parser.names():
        from . import program

        return program.run_or_refuse(argv)
    options, flags = parser.parse(argv)
    status: int = options.run(options, flags)
    return status


def _with_command(argv: list[str]) -> list[str]:
    """Return the arguments with a command in front: a leading option means `serve`, unless it is one of `dsv4`."""
    from ..errors import UsageError

    first, *rest = argv or ["--help"]
    for options, command in (("-h", "--help"), "help"), (("-V", "--version"), "version"):
        if first in options:
            return [command, *rest]
        if first.startswith((options[0], f"{options[1]}=")):
            raise UsageError(f"`dsv4` does not take {first!r}; write {options[1]} alone.")
    if first == "--":
        raise UsageError("`--` needs a command before it, as in `dsv4 serve -- --max-num-seqs 4`.")
    return ["serve", *argv] if first.startswith("-") else argv
