"""Read the replicas of one side, all at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..client import http
from ..client.errors import RequestFailed
from . import reading
from .addresses import CanaryAddress, Resolve, at_once
from .reading import ReplicaReading

SECONDS = 10.0
"""After these, no more replicas are asked: with many silent ones, a share at the balancer would end meanwhile."""
Readings = Mapping[str, ReplicaReading | str]
"""By address; a text says why a replica could not be read."""


@dataclass(frozen=True)
class ReplicaSet:
    """The replicas of one side: URLs of vLLM's API, a name with several addresses being several replicas."""

    urls: Sequence[str]
    health_port: int
    key: str | None = field(repr=False)
    resolve: Resolve

    clock: Callable[[], float] = time.monotonic

    def read(self) -> Readings:
        """Return a reading of each replica that is there now."""
        until = self.clock() + SECONDS
        return at_once(lambda address: self._read(address, until), self.addresses())

    def addresses(self) -> list[CanaryAddress]:
        """Return the addresses of all replicas."""
        return [address for url in self.urls for address in self.resolve(url)]

    def health(self, address: CanaryAddress) -> str:
        """Return the address of a replica's health server, which has no TLS."""
        host = urlsplit(address.url).hostname or ""
        return f"http://{f'[{host}]' if ':' in host else host}:{self.health_port}"

    def _read(self, address: CanaryAddress, until: float) -> ReplicaReading | str:
        if self.clock() > until:
            return "it was not asked, as too many others do not answer"
        try:
            ours = http.get_accepted(f"{self.health(address)}/metrics", self.key).text
            of_vllm = http.get_accepted(f"{address.url}/metrics", self.key, name=address.name).text
            return reading.read(of_vllm, ours)
        except (RequestFailed, ValueError) as error:
            return str(error)
