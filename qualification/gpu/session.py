"""End a server that leads a session of its own, and whatever it started: an engine has process groups of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

from dsv4_serve.entrypoint import procfs


def end(process: subprocess.Popen[bytes], patience: float) -> None:
    """Ask the leader to end, wait so many seconds for it, then kill what is left of its session."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill every process of a session whose leader this is, and reap the leader."""
    for pid in procfs.pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
    process.wait()
