"""Two replicas and the balancer before them, as tests see them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import httpx

from tests.support.balancer import Balancer, Late, Names
from tests.support.patience import slowness
from tests.support.replica import Replica


@dataclass
class Pair:
    """Two replicas by their address, and the balancer before them."""

    balancer: Balancer
    names: Names
    start: Callable[[str], Replica]
    port: int
    health_port: int
    replicas: dict[str, Replica] = field(default_factory=dict)

    def add(self, address: str) -> Replica:
        self.replicas[address] = self.start(address)
        if address not in self.names.running:
            self.names.running.append(address)
        return self.replicas[address]

    def seen(self, address: str) -> dict[str, int]:
        """What reached the engine of a replica."""
        return httpx.get(f"http://{address}:{self.port}/seen", trust_env=False, verify=False).json()

    def ready(self, address: str) -> bool:
        """What the replica says itself."""
        try:
            url = f"http://{address}:{self.health_port}/readyz"
            return httpx.get(url, trust_env=False, verify=False).status_code == 200
        except httpx.HTTPError:
            return False

    def until_up(self, *addresses: str, seconds: float = 60.0) -> float:
        """Return the seconds until exactly these get requests, with and without a session."""
        began = time.monotonic()
        while time.monotonic() - began < seconds * slowness():
            if self.balancer.up() == self.balancer.up("sessions") == set(addresses):
                return time.monotonic() - began
            if ended := [a for a in addresses if self.replicas[a].process.poll() is not None]:
                raise Late(f"ended instead\n{self.replicas[ended[0]].log_text()[-3000:]}")
            time.sleep(0.05)
        raise Late(f"in rotation: {self.balancer.up()}, not {addresses}\n{self.balancer.log.read_text()[-3000:]}")


MakePair = Callable[..., AbstractContextManager[Pair]]
