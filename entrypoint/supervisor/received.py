"""
The bytes that processes have received over TCP and written: a download moves them, whatever system call carries it.

/proc/PID/io does not count recv(2), and /proc/net/dev counts the traffic of the whole host where vLLM runs without a
container. The kernel's socket diagnostics (sock_diag(7)) count each connection for itself.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP = 4, 20, 0x301  # linux/netlink.h, linux/sock_diag.h
_DONE, _ERROR = 3, 2  # NLMSG_DONE, NLMSG_ERROR
_INFO = 2  # INET_DIAG_INFO of linux/inet_diag.h: a struct tcp_info
_STATES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8  # ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2
_INODE = 68  # where struct inet_diag_msg, of 72 bytes, has the socket's inode
_MESSAGE = 72
_BYTES_RECEIVED = 128  # where struct tcp_info has tcpi_bytes_received
_SECONDS = 2.0


def arrived(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """Return the bytes that these processes have written, and received on TCP connections that are open now."""
    pids = list(pids)
    inodes = {inode for pid in pids for inode in _sockets(proc / str(pid) / "fd")}
    received = sum(count for inode, count in tcp_received() if inode in inodes) if inodes else 0
    return received + sum(_written(proc / str(pid) / "io") for pid in pids)


def tcp_received() -> Iterator[tuple[int, int]]:
    """Yield the inode of each TCP connection of this network namespace, and its received bytes; none without them."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            yield from _dump(family)
        except OSError:  # a kernel or a sandbox without socket diagnostics
            return


def _dump(family: int) -> Iterator[tuple[int, int]]:
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_INFO - 1), _STATES)
    head = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(_SECONDS)
        netlink.sendall(head + body)
        while True:
            answer = netlink.recv(1 << 16)
            while answer:
                length, kind, *_ = _HEADER.unpack_from(answer)
                if kind in (_DONE, _ERROR):
                    return
                yield from _connection(answer[_HEADER.size : length])
                answer = answer[length + 3 & ~3 :]


def _connection(message: bytes) -> Iterator[tuple[int, int]]:
    inode = int.from_bytes(message[_INODE : _INODE + 4], "little")
    rest = message[_MESSAGE:]
    while len(rest) >= 4:
        length, kind = struct.unpack_from("=HH", rest)
        if kind == _INFO and length >= 4 + _BYTES_RECEIVED + 8:
            yield inode, struct.unpack_from("=Q", rest, 4 + _BYTES_RECEIVED)[0]
        rest = rest[max(4, length + 3 & ~3) :]


def _sockets(folder: Path) -> Iterator[int]:
    try:
        links = [os.readlink(entry.path) for entry in os.scandir(folder)]  # noqa: PTH115 - a hundred a poll
    except OSError:  # it has ended, closed one meanwhile, or is another user's
        return
    yield from (int(link[8:-1]) for link in links if link.startswith("socket:["))


def _written(file: Path) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("wchar:")), 0)
