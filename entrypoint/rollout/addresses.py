"""The addresses behind a name: each is a replica, or a balancer, of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

Result = TypeVar("Result")
_AT_ONCE = 256
"""Silent addresses that are waited for at the same time."""
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class CanaryAddress:
    """One address of a name: `url` has it in the place of the name, which a certificate holds."""

    url: str
    name: str = ""


Resolve = Callable[[str], list[CanaryAddress]]
"""Return each address of a URL."""


def resolved(url: str) -> list[CanaryAddress]:
    """Return the URL once for each address of its host, sorted; none for an unknown name."""
    parts = urlsplit(url)
    name, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    hosts = sorted({str(address[4][0]) for address in found})
    return [
        CanaryAddress(
            f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path}", "" if host == name else name
        )
        for host in hosts
    ]


def at_once(function: Callable[[CanaryAddress], Result], addresses: Sequence[CanaryAddress]) -> dict[str, Result]:
    """Return what a function returns for each address, by its URL; time-outs do not add up."""
    if not addresses:
        return {}
    with ThreadPoolExecutor(min(_AT_ONCE, len(addresses))) as pool:
        return {one.url: result for one, result in zip(addresses, pool.map(function, addresses), strict=True)}
