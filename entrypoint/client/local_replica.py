"""Run a replica of our own during a block: start `dsv4 serve` on this host, and drain it at the end."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from pydantic import BaseModel, ValidationError

from .. import procfs, sentences
from ..errors import UserError
from ..exit_status import of_signal
from . import http
from .endpoint import Endpoint
from .errors import RequestFailed

log = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between two checks
PROGRESS = 30.0  # seconds between two messages about the phase
STOPPING = 60.0  # seconds to end after SIGTERM: 5 s for requests, the time for vLLM to release the GPUs, and slack
KILLED = 5.0  # seconds to end after SIGKILL
QUICK_END = ("--supervise.drain-wait", "0", "--shutdown-timeout", "5")
"""Flags of `serve` for a replica without other clients: no balancer has to notice its end."""
LOCAL = "127.0.0.1"
KEYS = ("API_KEY_FILE", "VLLM_API_KEY")
"""Variables that it does not inherit, as it has no other clients."""
LOG_TAIL = 1 << 20  # bytes
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class ReplicaEnded(UserError):
    """The replica ended, or was not ready in time; its log says why."""


class Stopped(UserError):
    """A signal ended the command, and the replica was stopped (status 128 + the signal, as a shell reports it)."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}.")
        self.exit_status = of_signal(number)


@dataclass(frozen=True)
class ServeProcess:
    """A `dsv4 serve` that was started; it writes to `log`."""

    process: subprocess.Popen[bytes]
    port: int
    health_port: int
    log: Path

    @property
    def endpoint(self) -> Endpoint:
        """Its URLs."""
        return Endpoint(f"http://{LOCAL}:{self.port}", f"http://{LOCAL}:{self.health_port}")

    def until_ready(self, seconds: float, pause: float) -> Iterator[tuple[float, str]]:
        """
        Yield the seconds so far and the phase, every `pause` seconds, until the replica is ready.

        Raise ReplicaEnded when it ends instead, or is not ready in so many seconds.
        """
        began = yielded = time.monotonic()
        while not self._ready():
            if self.process.poll() is not None:
                raise ReplicaEnded(self.ended())
            now = time.monotonic()
            if now - began > seconds:
                raise ReplicaEnded(
                    f"the replica is not ready after {seconds:.0f} s: {self.phase()}; its log is {self.log}"
                )
            if now - yielded > pause:
                yielded = now
                yield now - began, self.phase()
            time.sleep(PAUSE)

    def _ready(self) -> bool:
        with contextlib.suppress(RequestFailed):
            return http.get(f"{self.endpoint.health}/readyz", None).is_success
        return False

    def phase(self) -> str:
        """Return the phase of its start."""
        try:
            return str(http.get(f"{self.endpoint.health}/startupz?format=json", None).json()["phase"])
        except (RequestFailed, ValueError, LookupError, TypeError):
            return "its health server does not answer"

    def progress(self) -> str:
        """Return how far its start is, as its own log has it."""
        try:
            check = http.get(f"{self.endpoint.health}/startupz/started?format=json", None).json()["checks"][0]
            return str(check.get("why", "ready"))
        except (RequestFailed, ValueError, LookupError, TypeError):
            return "its health server does not answer"

    def ended(self) -> str:
        """Return how a replica ended that should still run, with the last message of its log."""
        _, marker, message = tail(self.log).rpartition("dsv4: ")
        reason = " ".join((message if marker else tail(self.log)[-400:]).split()) or "it logged nothing"
        return (
            f"the replica ended with status {self.process.returncode}: {sentences.ended(reason)} Its log is {self.log}"
        )


@dataclass(frozen=True)
class Started:
    """A ready replica, its log, a description of its start (`start_of`), and the process of `dsv4 serve`."""

    endpoint: Endpoint
    log: Path
    start: Mapping[str, Any]
    process: subprocess.Popen[bytes]


class _Start(BaseModel):
    phases: dict[str, float]
    caches: str


def scratch() -> Path:
    """Return a new folder for the log and the run directory of a replica; it is kept, so that the log can be read."""
    return Path(tempfile.mkdtemp(prefix="dsv4-"))


@contextlib.contextmanager
def replica(argv: Sequence[str], environ: Mapping[str, str], folder: Path, seconds: float) -> Iterator[Started]:
    """
    Run `dsv4 serve ARGV` with its log and run directory in `folder`, and yield when it is ready.

    Raise ReplicaEnded if it ends or is not ready within `seconds`. A signal to stop stops it too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    variables = {
        **{name: value for name, value in environ.items() if name not in KEYS},
        "DSV4_RUN_DIR": str(folder / "run"),
        "DSV4_TERMINATION_LOG": str(folder / "termination-log"),
    }
    with stops_raise(), serving([*argv, "--host", LOCAL, *QUICK_END], variables, folder / "log") as started:
        log.info(f"starting a replica on port {started.port}, health on {started.health_port}; log: {started.log}")
        for _ in started.until_ready(seconds, PROGRESS):
            log.info(started.progress())
        yield Started(started.endpoint, started.log, start_of(started.endpoint.health), started.process)


@contextlib.contextmanager
def serving(
    argv: Sequence[str], environ: Mapping[str, str], output: Path, port: int = 0, health_port: int = 0
) -> Iterator[ServeProcess]:
    """Run `dsv4 serve ARGV` on this host, on free ports where none are given; stop it and all its children."""
    port = port or free_port()
    health_port = health_port or free_port()
    ports = {
        "DSV4_LOG_FORMAT": "text",
        "PORT": str(port),
        "DSV4_HEALTH_HOST": LOCAL,
        "DSV4_HEALTH_PORT": str(health_port),
    }
    with contextlib.ExitStack() as stack:
        with stops_held() as before, output.open("wb") as out:

            def child() -> None:
                procfs.end_with_parent()
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

            process = subprocess.Popen(
                [sys.executable, "-m", "dsv4_serve.entrypoint", "serve", *argv],
                env={**environ, **ports},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that we pass on a Ctrl-C in the terminal
                preexec_fn=child,  # noqa: PLW1509 - two system calls, which need no lock
            )
            stack.callback(stop, process)
        yield ServeProcess(process, port, health_port, output)


@contextlib.contextmanager
def stops_held() -> Iterator[Collection[int]]:
    """Hold signals to stop during the block, and yield the mask before it: one within Popen would lose the process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop(process: subprocess.Popen[bytes], seconds: float = STOPPING) -> None:
    """Let it drain, then kill what remains of it and its children."""
    children = procfs.descendants(process.pid)
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        children += procfs.descendants(process.pid)
        process.kill()
        process.wait()
    finally:
        _, alive = psutil.wait_procs(children, timeout=KILLED)
        for child in alive:
            child.kill()
        psutil.wait_procs(alive, timeout=KILLED)


def start_of(health: str | None) -> dict[str, Any]:
    """Return how a replica started: `{"phases": {NAME: seconds}, "caches"}`; empty if that is unavailable."""
    if health is None:
        return {}
    with contextlib.suppress(RequestFailed, ValidationError):
        start = _Start.model_validate_json(http.get_accepted(f"{health}/startupz?format=json", None).content)
        start.phases.pop("ready", None)
        return start.model_dump()
    return {}


def tail(output: Path) -> str:
    """Return the last LOG_TAIL bytes of a log as text."""
    with output.open("rb") as opened:
        opened.seek(max(0, output.stat().st_size - LOG_TAIL))
        return opened.read().decode(errors="replace")


def free_port(preferred: int = 0) -> int:
    """
    Return `preferred` when nothing listens there on any address, else a free port.

    It lies below Linux's ephemeral ports (32768 and up), so that no outgoing connection takes it before a server does.
    """
    others = random.SystemRandom().sample(range(20000, 32768), 100)  # processes with one seed would draw the same
    return next((port for port in (preferred, *others) if port and _is_free(port)), 0)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))  # one that listens on another address keeps a server for all of them from it
        except OSError:
            return False
    return True


@contextlib.contextmanager
def stops_raise(*, once: bool = False) -> Iterator[None]:
    """Turn signals to stop into Stopped during the block; with `once`, those after the first are ignored."""

    def stopped(number: int, _frame: FrameType | None) -> None:
        if once:
            ignore_stops()
        raise Stopped(number)

    before = {number: signal.signal(number, stopped) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stops() -> None:
    """Ignore signals to stop until the end of the block of `stops_raise`."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
