"""Read the replicas of one side, all at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..client import http
from ..client.errors import RequestFailed
from . import reading
from .addresses import Resolve
from .reading import ReplicaReading

_AT_ONCE = 16
Readings = Mapping[str, ReplicaReading | str]
"""By address; a text says why a replica could not be read."""


@dataclass(frozen=True)
class ReplicaSet:
    """The replicas of one side: URLs of vLLM's API, a name with several addresses being several replicas."""

    urls: Sequence[str]
    health_port: int
    key: str | None = field(repr=False)
    resolve: Resolve

    def read(self) -> Readings:
        """Return a reading of each replica that is there now."""
        addresses = [address for url in self.urls for address in self.resolve(url)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(addresses, pool.map(self._read, addresses), strict=True))

    def health(self, address: str) -> str:
        """Return the address of a replica's health server."""
        parts = urlsplit(address)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}:{self.health_port}"

    def _read(self, address: str) -> ReplicaReading | str:
        try:
            ours = http.get_accepted(f"{self.health(address)}/metrics", self.key).text
            of_vllm = http.get_accepted(f"{address}/metrics", self.key).text
            return reading.read(of_vllm, ours)
        except (RequestFailed, ValueError) as error:
            return str(error)
