"""The addresses behind a name: each is a replica, or a balancer, of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

Resolve = Callable[[str], list[str]]
"""Return `http://ADDRESS:PORT` for each address of a URL."""


def resolved(url: str) -> list[str]:
    """Return the URL once for each address of its host, sorted; itself for https, and none for an unknown name."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return [url]
    port = parts.port or 80
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    hosts = sorted({str(address[4][0]) for address in found})
    return [f"http://{f'[{host}]' if ':' in host else host}:{port}" for host in hosts]
