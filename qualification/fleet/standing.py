"""What stands before replicas, as a measurement sees it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

import psutil


@dataclass
class Front:
    """A balancer that runs; `up` says which replicas it sends requests to, by address."""

    version: str
    where: Callable[[], tuple[str, int]]
    up: Callable[[], set[str]]
    processes: Callable[[], list[psutil.Process]]
    status_port: int = 0
    names: list[str] = field(default_factory=list)
    """Addresses that its DNS has."""
    changes: tuple[str, ...] = ()
    """Lines in which its configuration is not the one that is shipped."""
    remove: Callable[[str], None] = lambda _: None
    """What tells it that a replica is about to end: Kubernetes does, for those that watch it."""

    def cpu_seconds(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())

    def memory(self) -> int:
        """Bytes resident."""
        return sum(process.memory_info().rss for process in self.processes())


@contextmanager
def direct(addresses: list[str], port: int) -> Iterator[Front]:
    """No balancer: clients take turns. What is measured so is the clients and the replicas themselves."""
    turn = itertools.cycle((address, port) for address in addresses)
    yield Front("none", lambda: next(turn), lambda: set(addresses), list)


@contextmanager
def taking_turns(fronts: Iterable[AbstractContextManager[Front]]) -> Iterator[Front]:
    """Several balancers before the same replicas; clients take turns."""
    with ExitStack() as stack:
        running = [stack.enter_context(one) for one in fronts]
        turn = itertools.cycle(running)
        yield Front(
            f"{len(running)} x {running[0].version}",
            lambda: next(turn).where(),
            lambda: set.intersection(*(one.up() for one in running)),
            lambda: [process for one in running for process in one.processes()],
            changes=running[0].changes,
        )
