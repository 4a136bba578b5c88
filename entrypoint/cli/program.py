"""Run a program instead of a command where `dsv4` is the image's entrypoint; reject it elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ..errors import NotFound, UsageError, nearest
from ..exit_status import of_signal
from ..supervisor.executable import locate, not_executable
from . import parser as line

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
INIT = "tini"
"""The program that the image starts `dsv4` with."""


def run_or_refuse(argv: Sequence[str]) -> int:
    """Run a program where this is the image's entrypoint; else raise UsageError, and run nothing."""
    if not is_entrypoint():
        _refuse(argv[0])
    try:
        return run(argv, os.environ)
    except NotFound as error:
        commands = line.names()
        raise NotFound(f"{error} Commands of dsv4: {', '.join(commands)}{nearest(argv[0], commands)}.") from None


def is_entrypoint() -> bool:
    """
    Return whether a container was started with this process: it is the first, or the child of the image's tini.

    Its own environment proves nothing, as a shell in the container inherits it. tini is not always the first process:
    `docker run --init` and a pod with shared processes put another one before it.
    """
    if os.getpid() == 1:
        return True
    try:
        return Path(f"/proc/{os.getppid()}/comm").read_text(encoding="utf-8").strip() == INIT
    except OSError:
        return False


def _refuse(name: str) -> NoReturn:
    raise UsageError(f"{name!r} is not a command{nearest(name, line.names())}; see `dsv4 --help`.")


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """
    Run a command to its end and return its status; 128 + N when signal N ended it.

    The child leads a process group of its own, so that Ctrl-C in a terminal reaches it once, through this process.
    Raise NotFound (127) or NotExecutable (126) when it cannot be started.
    """
    program = locate(argv[0], environ)
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)
        if child is not None and child.poll() is None:
            child.send_signal(number)

    child: subprocess.Popen[bytes] | None = None
    before = {number: signal.signal(number, note) for number in FORWARDED}
    try:
        child = subprocess.Popen(list(argv), executable=program, env=dict(environ), process_group=0)
        for number in arrived:  # signals that came before the child was started
            child.send_signal(number)
        status = child.wait()
    except OSError as error:
        raise not_executable(argv[0], error) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return of_signal(-status) if status < 0 else status
