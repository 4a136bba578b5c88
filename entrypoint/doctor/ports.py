"""Whether a TCP port can be had, and who holds it."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from dsv4_serve.entrypoint import processes


@dataclass(frozen=True)
class Port:
    """A port that was asked for; `refused` is empty when it is free, `holder` when nobody could be named."""

    host: str
    number: int
    setting: str
    refused: str = ""
    holder: str = ""


def look(host: str, number: int, setting: str) -> Port:
    """Bind as vLLM does (SO_REUSEADDR), and let go. Port 0 means any, and is always free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, number))
            attempt.listen()
        except OSError as error:
            holder = _holder(number) if error.errno == errno.EADDRINUSE else ""
            return Port(host, number, setting, os.strerror(error.errno) if error.errno else str(error), holder)
    return Port(host, number, setting)


def _holder(number: int) -> str:
    """Name the listening process, `pid 42 (python3)`; empty when it is another user's or another container's."""
    pid = processes.listening(processes.everyone(), number)
    try:
        return f"pid {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})" if pid else ""
    except OSError:
        return ""
