"""A stable replica and a candidate behind a real HAProxy, and `dsv4 canary` for both."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.balancer import KEY, Balancer, Names, balancer, free_port
from tests.support.patience import slowness
from tests.support.replica import Replica, replica

STABLE, CANDIDATE = "127.0.0.2", "127.0.0.3"
CANARY_KEY = "a-canary-key-of-the-tests"


@dataclass
class Stage:
    """A stable replica and a candidate behind a balancer."""

    folder: Path
    balancer: Balancer
    names: Names
    port: int
    health_port: int
    replicas: dict[str, Replica]

    @property
    def candidate(self) -> Replica:
        return self.replicas[self.names.candidates[0]]

    def argv(self, *words: str) -> list[str]:
        sides = ["--stable", f"http://{self.names.running[0]}:{self.port}"]
        sides += ["--candidate", f"http://{self.names.candidates[0]}:{self.port}"]
        keys = ["--api-key-file", str(self.folder / "key"), "--canary-key-file", str(self.folder / "canary-key")]
        there = ["--health-port", str(self.health_port), "--balancer", self.status]
        there += ["--out", str(self.folder / "results"), "--format", "json"]
        return [sys.executable, "-m", "dsv4_serve.entrypoint", "canary", *sides, *there, *keys, *words]

    @property
    def status(self) -> str:
        return f"http://127.0.0.1:{self.balancer.status_port}"

    def canary(self, *words: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(self.argv(*words), stdout=subprocess.PIPE, check=False, timeout=240 * slowness())
        return done.returncode, json.loads(done.stdout)

    def share(self, key: str = CANARY_KEY, **headers: str) -> httpx.Response:
        method = "PUT" if headers else "GET"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.request(
            method, f"{self.status}/canary", headers={"Authorization": f"Bearer {key}", **named}, trust_env=False
        )

    def served_by(self, number: int) -> list[str]:
        with self.balancer.client() as client:
            asked = {"prompt": "Once", "max_tokens": 1}
            return [client.post("/v1/completions", json=asked).headers["x-replica"] for _ in range(number)]

    def swap(self) -> None:
        """Make the candidate the stable replica, and the stable one the candidate."""
        self.names.running[:], self.names.candidates[:] = self.names.candidates[:], self.names.running[:]

    def until_up(self, seconds: float = 60.0) -> None:
        """Return when the balancer sends requests to both."""
        stable, candidate = self.names.running[0], self.names.candidates[0]
        for address, backend in ((stable, "replicas"), (stable, "sessions"), (candidate, "candidates")):
            self.replicas[address].until(
                lambda address=address, backend=backend: self.balancer.up(backend) == {address},
                seconds,
                f"{address} gets requests",
            )


@contextmanager
def staged(
    folder: Path,
    binary: str,
    settings: Mapping[str, str],
    of_candidate: Mapping[str, str],
    words: Mapping[str, Sequence[str]],
    *,
    seconds: float = 60.0,
) -> Iterator[Stage]:
    """Start both with `settings`, the candidate with more; `words` are flags by address."""
    (folder / "key").write_text(KEY)
    (folder / "canary-key").write_text(f"{CANARY_KEY}\n")
    port, health_port = free_port(), free_port()
    names = Names()
    names.running.append(STABLE)
    names.candidates.append(CANDIDATE)
    with ExitStack() as stack:
        started: dict[str, Replica] = {}
        for address, more in ((STABLE, {}), (CANDIDATE, of_candidate)):
            ours = {"PORT": str(port), "DSV4_HEALTH_HOST": address, "DSV4_HEALTH_PORT": str(health_port)}
            ours |= {"API_KEY_FILE": str(folder / "key"), "DSV4_GATE_TOKENS": "8", "DSV4_SUPERVISE_DRAIN_WAIT": "0"}
            argv = ("--host", address, *words.get(address, ()))
            one = replica(
                folder / address, *argv, model_name="stand-in", seconds_to_stop=5, **{**settings, **ours, **more}
            )
            started[address] = stack.enter_context(one)
        front = {"REPLICA_PORT": str(port), "REPLICA_HEALTH_PORT": str(health_port), "CANDIDATE_NAME": "candidate"}
        front |= {"CANARY_KEY_FILE": str(folder / "canary-key")}
        running = stack.enter_context(balancer(folder / "b", names, binary=binary, **front))
        made = Stage(folder, running, names, port, health_port, started)
        made.until_up(seconds)
        yield made
