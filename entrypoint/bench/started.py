"""A replica of our own for the length of a block: `dsv4 serve` on free ports, ready, then drained; nothing is left."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import BaseModel, ValidationError

from .. import exit_status, procfs
from ..client import endpoint
from ..client.endpoint import Endpoint, NoAnswer
from ..errors import UserError

PAUSE = 0.5  # seconds between two looks
TOLD = 30.0  # seconds between two sentences about the phase
STOPPING = 60.0  # seconds to end after SIGTERM: 5 s for requests, the time for vLLM to release the GPUs, and slack
QUICK_END = ("--supervise.drain-wait", "0", "--shutdown-timeout", "5")
"""Flags of `serve` for a replica that nobody else asks: no balancer has to see it go."""
LOCAL = "127.0.0.1"
KEYS = ("API_KEY_FILE", "VLLM_API_KEY")
"""Variables that it does not inherit: nobody else can ask it."""


class Ended(UserError):
    """The replica ended, or was not ready in time; its log says why."""


class Stopped(UserError):
    """A signal asked us to stop; what was started has been stopped (128 + the signal, as a shell reports it)."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}.")
        self.exit_status = exit_status.of_signal(number)


@dataclass(frozen=True)
class Started:
    """A replica that is ready, its log, and what its start was (`start_of`)."""

    endpoint: Endpoint
    log: Path
    start: Mapping[str, Any]


class _Start(BaseModel):
    phases: dict[str, float]
    caches: str


def scratch() -> Path:
    """Return a new folder for the log and the run directory of a replica; it stays, so that the log can be read."""
    return Path(tempfile.mkdtemp(prefix="dsv4-"))


@contextlib.contextmanager
def replica(
    words: Sequence[str], environ: Mapping[str, str], folder: Path, say: Callable[[str], None], patience: float
) -> Iterator[Started]:
    """
    Run `dsv4 serve WORDS` with its log and run directory in `folder`, and yield when it may get traffic.

    Raise Ended where it is not ready after `patience` seconds, or ends instead. A signal to stop stops it too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, health = free_port(), free_port()
    ours = {
        "PORT": str(port),
        "DSV4_HEALTH_HOST": LOCAL,
        "DSV4_HEALTH_PORT": str(health),
        "DSV4_RUN_DIR": str(folder / "run"),
        "DSV4_TERMINATION_LOG": str(folder / "termination-log"),
    }
    log = folder / "log"
    with stops_raise(), log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dsv4_serve.entrypoint", "serve", *words, "--host", LOCAL, *QUICK_END],
            env={**{name: value for name, value in environ.items() if name not in KEYS}, **ours},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        say(f"a replica starts on port {port}, health on {health}; log: {log}")
        where = Endpoint(f"http://{LOCAL}:{port}", f"http://{LOCAL}:{health}")
        try:
            _until_ready(process, where, log, say, patience)
            yield Started(where, log, start_of(where.health))
        finally:
            stop(process)


def _until_ready(
    process: subprocess.Popen[bytes], where: Endpoint, log: Path, say: Callable[[str], None], patience: float
) -> None:
    began = told = time.monotonic()
    while True:
        if process.poll() is not None:
            raise Ended(f"the replica ended with status {process.returncode}: {last_word(log)} (log: {log})")
        with contextlib.suppress(NoAnswer):
            endpoint.get(f"{where.health}/readyz", None)
            return
        now = time.monotonic()
        if now - began > patience:
            raise Ended(f"the replica is not ready after {patience:.0f} s: {phase(where)} (log: {log})")
        if now - told > TOLD:
            told = now
            say(phase(where))
        time.sleep(PAUSE)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Have it drain; it ends everything below it. What does not end in STOPPING seconds is killed."""
    process.terminate()
    try:
        process.wait(STOPPING)
    except subprocess.TimeoutExpired:
        procfs.end_all(process.pid)
        process.kill()
        process.wait()


def start_of(health: str | None) -> dict[str, Any]:
    """Return what a replica tells of its start: `{"phases": {NAME: seconds}, "caches"}`; empty where it tells none."""
    if health is None:
        return {}
    with contextlib.suppress(NoAnswer, ValidationError):
        told = _Start.model_validate_json(endpoint.get(f"{health}/startupz?format=json", None).content)
        told.phases.pop("ready", None)
        return told.model_dump()
    return {}


def phase(where: Endpoint) -> str:
    """Return the phase of a start in words."""
    try:
        state = endpoint.ask(f"{where.health}/startupz?format=json", None).json()
        return f"{state['phase']}, {sum(state['phases'].values()):.0f} s since start"
    except (NoAnswer, ValueError, LookupError) as error:
        return f"its health server does not tell ({error})"


def last_word(log: Path) -> str:
    """Return what `dsv4 serve` said last: how it ended, with the root cause line of vLLM's log."""
    text = log.read_text(encoding="utf-8", errors="replace")
    _, found, said = text.rpartition("dsv4: ")
    return " ".join((said if found else text[-400:]).split()) or "it said nothing"


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def stops_raise() -> Iterator[None]:
    """Turn signals to stop into Stopped for the length of the block, so that what was started is stopped."""

    def stopped(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stopped) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
