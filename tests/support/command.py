"""
The command as a process of its own that starts in milliseconds: a fork of one that has imported it.

The start of Python and the imports are nine tenths of what `dsv4 explain` costs. Tests of what happens before and after
`main`, of what `ps` shows and of the interpreter's own variables start `ARGV`.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Lock, Thread
from typing import IO

from tests.support.patience import slowness
from tests.support.program import environment

ARGV = (sys.executable, "-m", "dsv4_serve.entrypoint")
SENDING = Lock()


def run(
    *words: str, env: Mapping[str, str], cwd: Path | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """`dsv4 WORDS…` with this environment and no other; its output is captured, and it reads no input."""
    limit = timeout or 60 * slowness()
    pipes = [os.pipe() for _ in range(3)]
    message = json.dumps({"argv": words, "env": dict(env), "cwd": str(cwd or Path.cwd())}).encode()
    with SENDING:
        socket.send_fds(_server(), [message], [there for _, there in pipes])
    for _, there in pipes:
        os.close(there)
    out, err, status = (os.fdopen(here, encoding="utf-8", errors="backslashreplace") for here, _ in pipes)
    started = status.readline()
    assert started, "the process that forks has ended; its own message is above"
    found: dict[IO[str], str] = {}
    files = (out, err, status)
    readers = [Thread(target=lambda file=file: found.update({file: file.read()}), daemon=True) for file in files]
    for reader in readers:
        reader.start()
    for file, reader in zip(files, readers, strict=True):
        reader.join(limit)
        if reader.is_alive():
            os.kill(int(started), signal.SIGKILL)
            raise subprocess.TimeoutExpired(words, limit)
        file.close()
    return subprocess.CompletedProcess([*ARGV, *words], int(found[status]), found[out], found[err])


@functools.cache
def _server() -> socket.socket:
    """The channel to the process that forks, which ends when the channel does."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {name: value for name, value in environment().items() if name in ("PATH", "HOME", "PYTHONPATH")}
    argv = [sys.executable, "-m", "tests.support.fork_server", str(there.fileno())]
    null = subprocess.DEVNULL
    server = subprocess.Popen(argv, env=env | {"LC_ALL": "C.UTF-8"}, pass_fds=[there.fileno()], stdin=null, stdout=null)
    there.close()
    atexit.register(server.wait)
    atexit.register(here.close)
    return here
