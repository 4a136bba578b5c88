"""A fleet under load, what is done to it, and what was seen: raw observations for figures.py."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from qualification.fleet.clients import Load, SentRequest
from qualification.fleet.fronts import front
from qualification.fleet.replicas import Fleet, fleet
from qualification.fleet.standing import Front
from qualification.fleet.timings import MEAN_TOKENS, MOST_TOKENS, RTX_PRO_6000_TP2, Recording
from tests.support.balancer import KEY

FAULTS = ("kill", "hang", "freeze", "drain", "slow")
FAULT_SECONDS = {"kill": 4.0, "hang": 15.0, "freeze": 14.0, "slow": 8.0}
DRAIN = 120.0
"""Seconds that each lasts; a drain lasts until what ran is finished, `shutdown-timeout` at most."""
FILLING, SETTLE = 8.0, 4.0
"""Seconds in which a fleet gets as many requests as it will have, and those after a fault."""
SLOW = 4.0
"""Times as long as before a step takes on the replica that is slow."""


@dataclass
class Fault:
    """One replica was hurt at `began` and was well again at `ended`; seconds of CLOCK_MONOTONIC."""

    kind: str
    replica: int
    began: float = 0.0
    ended: float = 0.0
    settled: float = 0.0


@dataclass
class Seen:
    """Everything that was observed in one run."""

    replicas: int
    front: str
    rate: float
    share: float
    sessions: float
    up_after: float
    changes: tuple[str, ...]
    steady: tuple[float, float] = (0.0, 0.0)
    cpu: float = 0.0
    memory: int = 0
    faults: list[Fault] = field(default_factory=list)
    requests: list[SentRequest] = field(default_factory=list)
    lags: list[tuple[float, float]] = field(default_factory=list)
    ups: list[tuple[float, set[str]]] = field(default_factory=list)
    log: dict[str, list] = field(default_factory=dict)


def mean_tokens() -> float:
    """Of the answers that clients ask for."""
    return MEAN_TOKENS * -math.expm1(-MOST_TOKENS / MEAN_TOKENS)


def share_of_capacity(replicas: int) -> float:
    """The offered load: 60 %, and never more than 90 % of what is left with one replica out."""
    return min(0.6, 0.9 * (replicas - 1) / replicas)


def run(
    replicas: int,
    kind: str,
    folder: Path,
    *,
    steady: float = 12.0,
    faults: tuple[str, ...] = FAULTS,
    sessions: float = 0.0,
    say: Callable[[str], None] = lambda _: None,
) -> Seen:
    """Put `replicas` behind the front `kind` under load, hurt one after the other, and return what was seen."""

    def one_after_the_other(made: Fleet, running: Front, seen: Seen) -> None:
        time.sleep(FILLING)
        cpu, at = running.cpu_seconds(), time.monotonic()
        time.sleep(steady)
        seen.steady = (at, time.monotonic())
        seen.cpu = (running.cpu_seconds() - cpu) / (seen.steady[1] - at)
        seen.memory = running.memory()
        for number, name in enumerate(faults):
            say(f"{running.version}, {replicas} replicas: {name}")
            seen.faults.append(hurt(made, running, name, number % replicas))

    share = share_of_capacity(replicas)
    return observed(replicas, kind, folder, one_after_the_other, share=share, sessions=sessions)


def observed(
    replicas: int,
    kind: str,
    folder: Path,
    do: Callable[[Fleet, Front, Seen], None],
    *,
    share: float,
    sessions: float = 0.0,
    recording: Recording = RTX_PRO_6000_TP2,
) -> Seen:
    """Call `do` while `replicas` behind the front `kind` have a `share` of the load that they can bear."""
    rate = share * replicas * recording.tokens_per_second / mean_tokens()
    with fleet(replicas) as made:
        began = time.monotonic()
        with front(kind, made.addresses, made.port, made.health_port, folder) as running:
            until_up(running, set(made.addresses), 60)
            up_after = time.monotonic() - began
            seen = Seen(replicas, running.version, rate, share, sessions, up_after, running.changes)
            load = Load(running.where, rate, KEY, sessions)
            thread = threading.Thread(target=lambda: uvloop.run(load.run()), daemon=True)
            thread.start()
            with watched(running, seen):
                do(made, running, seen)
            load.stopping = True
            thread.join(120)
            seen.requests, seen.lags = load.requests, load.lags
            made.tell("report", folder / "log.json")
    seen.log = json.loads((folder / "log.json").read_text())
    return seen


def hurt(made: Fleet, running: Front, kind: str, replica: int) -> Fault:
    """Do one thing to one replica and undo it."""
    fault = Fault(kind, replica)
    fault.began = made.tell(kind, replica, *([SLOW] if kind == "slow" else []))
    if kind == "drain":
        running.remove(made.addresses[replica])
    while kind == "drain" and replica not in made.ask("look")["over"] and time.monotonic() < fault.began + DRAIN:
        time.sleep(0.1)
    time.sleep(FAULT_SECONDS.get(kind, 0.0))
    match kind:
        case "freeze":
            fault.ended = made.tell("thaw", replica)
        case "slow":
            fault.ended = made.tell("slow", replica, 1.0)
        case _:
            if kind != "kill":
                made.tell("kill", replica)  # a hung engine: as the supervisor does, which by default waits longer
            fault.ended = made.tell("start", replica)
    time.sleep(SETTLE)
    fault.settled = time.monotonic()
    return fault


@contextmanager
def watched(running: Front, seen: Seen) -> Iterator[None]:
    """Note every 0.1 s which replicas the front sends requests to."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            before = time.monotonic()
            with suppress(OSError):  # vllm-router does not always answer while a replica hangs
                found = running.up()
                seen.ups.append(((before + time.monotonic()) / 2, found))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def until_up(running: Front, expected: set[str], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while running.up() != expected:
        if time.monotonic() > ends:
            raise TimeoutError(f"{running.version}: {len(running.up())} of {len(expected)} replicas are up")
        time.sleep(0.05)
