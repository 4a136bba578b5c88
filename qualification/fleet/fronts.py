"""What stands before the replicas, by name: nothing, HAProxy, several of them, or vllm-router."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qualification.fleet.haproxies import haproxy_before
from qualification.fleet.routers import router_before
from qualification.fleet.standing import Front, direct, taking_turns


@contextmanager
def front(kind: str, addresses: list[str], port: int, health_port: int, folder: Path) -> Iterator[Front]:
    """A front by its word: `direct`, `haproxy[:PROGRAM]`, `haproxies:COUNT` or `router[:FLAG=VALUE,…]`."""
    name, _, variant = kind.partition(":")
    match name:
        case "direct":
            made = direct(addresses, port)
        case "haproxy":
            made = haproxy_before(addresses, port, health_port, folder, variant)
        case "haproxies":
            places = [folder / str(number) for number in range(int(variant))]
            made = taking_turns(haproxy_before(addresses, port, health_port, place) for place in places)
        case "router":
            made = router_before(addresses, port, health_port, folder, variant)
        case _:
            raise ValueError(f"no front {name!r}: direct, haproxy, haproxies, router")
    with made as running:
        yield running
