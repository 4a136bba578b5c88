"""A node notices that another one is gone, and does not take its own death for that."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dsv4_serve.entrypoint import procfs
from dsv4_serve.entrypoint.plan import Plan, Setting
from dsv4_serve.entrypoint.supervisor.peers import Peers
from dsv4_serve.entrypoint.vllm_log import exit_cause
from dsv4_serve.entrypoint.vllm_log.root_cause import RootCause
from dsv4_serve.entrypoint.vllm_log.standing import Standing

OTHER = "10.0.0.2"
ECHO = RootCause("Worker failed with error", (), Standing.ECHO, fatal=True)
CAUSE = RootCause("CUDA out of memory", (), Standing.CAUSE, fatal=True)


def plan(rank: int = 0, nodes: int = 2, port: int = 29501) -> Plan:
    flags = {"nnodes": nodes, "node-rank": rank, "master-port": port, "tensor-parallel-size": 2}
    return Plan({}, {name: Setting(value, "test") for name, value in flags.items()}, {})


class Connections:
    """What stands in for the connections of this machine's processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: set[tuple[int, str]] = set()
        monkeypatch.setattr(procfs, "connected", lambda *_args, **_keywords: self.now)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    return Connections(monkeypatch)


def test_a_node_is_lost_after_two_looks_without_it(connections: Connections) -> None:
    peers = Peers(plan())
    assert not peers.connected
    connections.now = {(7, OTHER), (7, "10.0.0.3")}
    assert not peers.look([7])
    assert peers.connected
    connections.now = {(7, "10.0.0.3")}
    assert not peers.look([7])
    assert peers.look([7]) == OTHER


def test_a_connection_that_comes_back_is_no_loss(connections: Connections) -> None:
    peers = Peers(plan())
    for now in ({(7, OTHER)}, set(), {(7, OTHER)}, set()):
        connections.now = now
        assert not peers.look([7])


def test_a_process_of_ours_that_ends_takes_its_connections_along(connections: Connections) -> None:
    peers = Peers(plan())
    connections.now = {(7, OTHER)}
    peers.look([7])
    connections.now = set()
    assert not any(peers.look([8]) for _ in range(4))


def test_a_suspect_is_blamed_unless_the_log_has_another_cause(connections: Connections) -> None:
    for roots, blamed in (([ECHO], True), ([], True), ([CAUSE, ECHO], False)):
        peers = Peers(plan())
        for connections.now in ({(7, OTHER)}, set()):
            peers.look([7])
        assert peers.blamed(roots) is blamed


def test_nobody_is_blamed_while_all_are_connected(connections: Connections) -> None:
    peers = Peers(plan())
    connections.now = {(7, OTHER)}
    peers.look([7])
    assert not peers.blamed([ECHO])


@pytest.mark.parametrize(
    ("rank", "ready", "cause", "who"),
    [
        (0, True, exit_cause.ENGINE_DIED, "a node of this server"),
        (1, True, exit_cause.ENGINE_DIED, "the first node of this server"),
        (1, False, exit_cause.START_FAILED, "the first node of this server"),
    ],
)
def test_the_reason_names_the_node(
    rank: int, ready: bool, cause: exit_cause.Cause, who: str, connections: Connections
) -> None:
    peers = Peers(plan(rank))
    for connections.now in ({(7, OTHER)}, set(), set()):
        peers.look([7])
    reason = peers.reason(ready=ready)
    assert reason.cause is cause
    assert reason.sentence.startswith(f"{who} is gone: ")
    assert reason.root == f"vLLM at {OTHER} closed its connections"


def test_one_node_watches_nobody() -> None:
    peers = Peers(plan(nodes=1))
    assert peers.connected

    async def wait() -> None:
        async with asyncio.timeout(0.05):
            await peers.lost(list, ready=lambda: True, waits=lambda: None)

    with pytest.raises(TimeoutError):
        asyncio.run(wait())


@pytest.mark.parametrize(
    ("rank", "nodes", "here", "waits"),
    [
        (0, 2, set(), True),
        (0, 2, {(7, OTHER)}, False),
        (0, 3, {(7, OTHER)}, True),
        (0, 3, {(7, OTHER), (7, "10.0.0.3")}, False),
        (1, 3, {(7, "10.0.0.1")}, False),
        (0, 1, set(), False),
    ],
)
def test_a_node_is_patient_with_others_that_have_not_joined(
    rank: int, nodes: int, here: set[tuple[int, str]], waits: bool, connections: Connections
) -> None:
    connections.now, waited = here, []

    async def wait() -> None:
        async with asyncio.timeout(0.1):
            await Peers(plan(rank, nodes)).lost(lambda: [7], ready=lambda: False, waits=lambda: waited.append(1))

    with pytest.raises(TimeoutError):
        asyncio.run(wait())
    assert bool(waited) is waits


@pytest.fixture
def served() -> Iterator[tuple[socket.socket, int, int]]:
    """A connection between a port of this process and a child: our end, the port, and the child's process ID."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket, sys; s = socket.create_connection(('127.0.0.1', {port})); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
            accepted, _ = server.accept()
            with accepted:
                yield accepted, port, child.pid
            child.communicate()


def test_real_connections_are_found_from_both_ends(served: tuple[socket.socket, int, int]) -> None:
    _, port, child = served
    assert procfs.connected([os.getpid()], port, inbound=True) == {(os.getpid(), "127.0.0.1")}
    assert procfs.connected([child], port, inbound=False) == {(child, "127.0.0.1")}
    assert procfs.connected([os.getpid()], port, inbound=False) == set()
    assert procfs.connected([os.getpid(), child], port, inbound=True) == set()


def test_a_closed_connection_is_gone(served: tuple[socket.socket, int, int]) -> None:
    accepted, port, _ = served
    accepted.shutdown(socket.SHUT_RDWR)
    assert procfs.connected([os.getpid()], port, inbound=True) == set()
