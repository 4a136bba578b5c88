"""Start `dsv4 serve` as anyone would, watch it load, and leave no process behind."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from dsv4_serve.demo.errors import DemoError
from dsv4_serve.entrypoint import environment

HOST = "127.0.0.1"
STOP_SECONDS = 30.0
LOG_TAIL = 1 << 20  # bytes
LOG_PREFIX = re.compile(r"^\(\w[\w-]* pid=\d+\) (?:[A-Z]+ [\d-]+ [\d:]+ \[[^]]+\] )?")
DRAFT_REPORT = re.compile(r"^dsv4: (draft head: .+)$", re.MULTILINE)
CAUSE = re.compile(r"^(?:dsv4: |[\w.]*(?:Error|Exception): ).+")

# What vLLM 0.32.0 logs when a phase begins, in order; before the first one it is importing.
PHASES = (
    ("non-default args", "starting the engine"),
    ("Initializing a V1 LLM engine", "starting the worker"),
    ("Starting to load model", "loading the weights"),
    ("KV cache size", "making the KV cache"),
    ("Starting vLLM server", "opening the API"),
)

# A proxy in the environment is not asked for an address on this machine.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """A `dsv4 serve` that was started; its words go to `log`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    def get(self, path: str) -> str:
        """Return the body of a GET; raise OSError when there is no answer in 10 seconds."""
        with _http.open(self.url + path, timeout=10) as response:
            return str(response.read().decode())


def open_port(wanted: int) -> int:
    """Return `wanted` when it is free, else a free port of the system's choice."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(profile: str, model: Path, port: int, log: Path, vllm: Path | None = None) -> Iterator[Server]:
    """
    Run `dsv4 serve` with this profile, checkpoint and port, and with no other setting of the environment.

    `vllm` is a folder that holds another vLLM than the installed one.
    """
    others = {*environment.Variables.model_fields, "VLLM_API_KEY"}
    inherited = {name: value for name, value in os.environ.items() if name not in others}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dsv4_serve.entrypoint", "serve"],
            env={**inherited, **_first_on_path(vllm), "PROFILE": profile, "MODEL": str(model), "PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
        )
    try:
        yield Server(process, port, log)
    finally:
        stop(process)


def _first_on_path(vllm: Path | None) -> dict[str, str]:
    if vllm is None:
        return {}
    return {"PYTHONPATH": os.pathsep.join([str(vllm), *filter(None, [os.environ.get("PYTHONPATH")])])}


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, and after STOP_SECONDS end it and all its children."""
    children = descendants(process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        _, alive = psutil.wait_procs(children, timeout=5)
        for child in alive:
            child.kill()
        psutil.wait_procs(alive, timeout=5)


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes below `pid`; none when it has ended."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def startup(server: Server, limit: float, pause: float = 5.0) -> Iterator[tuple[float, str]]:
    """
    Yield seconds so far and the phase, every `pause` seconds, until the server is healthy.

    Raise DemoError when it ends instead, or is not healthy after `limit` seconds.
    """
    began = shown = time.monotonic()
    while not is_healthy(server):
        now = time.monotonic()
        if server.process.poll() is not None:
            raise DemoError(ended(server))
        if now - began > limit:
            reached = phase(tail(server.log))
            raise DemoError(f"the server is not ready after {limit:.0f} s (it is {reached}); its log is {server.log}")
        if now - shown >= pause:
            shown = now
            yield now - began, phase(tail(server.log))
        time.sleep(0.2)


def draft_report(server: Server, limit: float, pause: float = 0.2) -> str:
    """Wait for what `dsv4 serve` says of the draft head; raise DemoError when it says nothing for `limit` seconds."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        if found := DRAFT_REPORT.search(tail(server.log)):
            return found[1]
        time.sleep(pause)
    raise DemoError(f"`dsv4 serve` said nothing of the draft head in {limit:.0f} s; its log is {server.log}")


def is_healthy(server: Server) -> bool:
    """Tell whether GET /health answers 200."""
    try:
        server.get("/health")
    except OSError:
        return False
    return True


def ended(server: Server) -> str:
    """Say how a server ended that should still be there, and the first cause that its log gives."""
    reason = cause(tail(server.log))
    return f"the server ended with status {server.process.returncode}: {reason}; its log is {server.log}"


def tail(log: Path) -> str:
    """Return the last LOG_TAIL bytes of a log as text."""
    with log.open("rb") as opened:
        opened.seek(max(0, log.stat().st_size - LOG_TAIL))
        return opened.read().decode(errors="replace")


def phase(log: str) -> str:
    """Name the last of PHASES that a log has reached."""
    return next((name for mark, name in reversed(PHASES) if mark in log), "importing vLLM")


def cause(log: str) -> str:
    """Return the first error that a log names, else its last line."""
    lines = [LOG_PREFIX.sub("", line) for line in log.splitlines() if line.strip()]
    return next((line for line in lines if CAUSE.match(line)), lines[-1].strip() if lines else "it said nothing")
