"""Start a command as a child: argv list, no shell; signals go on to it, its status comes back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from ..errors import NotExecutable, NotFound

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def vllm_program(environ: Mapping[str, str]) -> str:
    """Return the vLLM to start: DSV4_VLLM, else the one installed beside this command, else the one on PATH."""
    if named := environ.get("DSV4_VLLM"):
        return named
    beside = Path(sys.executable).parent / "vllm"
    return str(beside) if beside.exists() else "vllm"


def locate(name: str, environ: Mapping[str, str]) -> str:
    """Return the program that a command's first word means; raise NotFound (127) when there is none."""
    program = shutil.which(name, path=environ.get("PATH", os.defpath))
    if program is None and not Path(name).exists():
        raise NotFound(f"{name}: not found, neither as a path nor on PATH; install it, or correct the name.")
    return program or name


def not_executable(name: str, error: OSError) -> NotExecutable:
    """Return what to raise when a program that is there cannot be started."""
    return NotExecutable(f"{name}: cannot be executed ({error.strerror}); check its mode and format.")


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """
    Run a command to its end and return its status; 128 + N when signal N ended it.

    The child leads a process group of its own, so that a Ctrl-C in a terminal reaches it once, through us.
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
        for number in arrived:  # what came between the handlers and the child
            child.send_signal(number)
        status = child.wait()
    except OSError as error:
        raise not_executable(argv[0], error) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - status if status < 0 else status
