"""Simulated replicas in a process of their own, and the commands sent to them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qualification.fleet.serve_fleet import address
from tests.support.balancer import free_port
from tests.support.program import environment


class Fleet:
    """Simulated replicas in a process of their own."""

    def __init__(self, count: int) -> None:
        self.addresses = [address(number) for number in range(count)]
        self.port, self.health_port = free_port(), free_port()
        argv = [sys.executable, "-m", "qualification.fleet.serve_fleet"]
        arguments = map(str, (count, self.port, self.health_port))
        self.process = subprocess.Popen(
            [*argv, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the simulated replicas ended")
        return line

    def tell(self, *arguments: object) -> float:
        """Give a command; return when it was done."""
        return float(self.ask(*arguments)["at"])

    def ask(self, *arguments: object) -> dict[str, Any]:
        """Give a command; return when it was done (`at`), which replicas are `over`, and how many requests each has."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, arguments)) + "\n")
        self.process.stdin.flush()
        return json.loads(self._line())


@contextmanager
def fleet(count: int) -> Iterator[Fleet]:
    """Run `count` replicas."""
    made = Fleet(count)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
