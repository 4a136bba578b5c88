"""Whether a TCP port can be had, and who holds it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"  # a socket's state in /proc/net/tcp (Linux, include/net/tcp_states.h)


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
    inodes = {f"socket:[{inode}]" for inode in _listening(number)}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(handle.readlink()) in inodes for handle in (process / "fd").iterdir()):
                return f"pid {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue
    return ""


def _listening(number: int) -> Iterator[str]:
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            words = line.split()
            if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == number:
                yield words[9]
