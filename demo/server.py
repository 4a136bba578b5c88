"""Start `dsv4 serve` as anyone would, watch it load, and leave no process behind."""

import json
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

from ..entrypoint.resolve import environment
from .errors import DemoError

HOST = "127.0.0.1"
STOP_SECONDS = 30.0
LOG_TAIL = 1 << 20  # bytes
SAID = re.compile(r"^dsv4: (?!health on port)(.+)$", re.MULTILINE)

# A proxy in the environment is not asked for an address on this machine.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """A `dsv4 serve` that was started; its words go to `log`."""

    process: subprocess.Popen[bytes]
    port: int
    health_port: int
    log: Path

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    def get(self, path: str) -> str:
        """Return the body of a GET; raise OSError when there is no answer in 10 seconds."""
        return _get(self.url + path)

    def health(self, path: str) -> str:
        """Return the body of a GET to its health server; raise OSError for no answer, or another status than 200."""
        return _get(f"http://{HOST}:{self.health_port}{path}")


def _get(url: str) -> str:
    with _http.open(url, timeout=10) as response:
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
    health_port = open_port(port + 1 if port < 65535 else 0)
    settings = {"PROFILE": profile, "MODEL": str(model), "PORT": str(port)}
    settings |= {"DSV4_HEALTH_HOST": HOST, "DSV4_HEALTH_PORT": str(health_port)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dsv4_serve.entrypoint", "serve"],
            env={**inherited, **_first_on_path(vllm), **settings},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
        )
    try:
        yield Server(process, port, health_port, log)
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
    Yield seconds so far and the phase, every `pause` seconds, until the server may get traffic.

    Raise DemoError when it ends instead, or is not ready after `limit` seconds.
    """
    began = shown = time.monotonic()
    while not is_ready(server):
        now = time.monotonic()
        if server.process.poll() is not None:
            raise DemoError(ended(server))
        if now - began > limit:
            where = f"it is {phase(server)}; its log is {server.log}"
            raise DemoError(f"the server is not ready after {limit:.0f} s: {where}")
        if now - shown >= pause:
            shown = now
            yield now - began, phase(server)
        time.sleep(0.2)


def is_ready(server: Server) -> bool:
    """Tell whether GET /readyz of its health server answers 200."""
    try:
        server.health("/readyz")
    except OSError:
        return False
    return True


def phase(server: Server) -> str:
    """Name the phase of its start."""
    try:
        return str(json.loads(server.health("/startupz/progress?format=json"))["phase"])
    except (OSError, ValueError, LookupError):
        return "resolving"


def said(server: Server) -> list[str]:
    """Return what `dsv4 serve` itself has said so far."""
    return SAID.findall(tail(server.log))


def ended(server: Server) -> str:
    """Say how a server ended that should still be there."""
    reason = (said(server) or ["it said nothing"])[-1]
    return f"the server ended with status {server.process.returncode}: {reason}; its log is {server.log}"


def tail(log: Path) -> str:
    """Return the last LOG_TAIL bytes of a log as text."""
    with log.open("rb") as opened:
        opened.seek(max(0, log.stat().st_size - LOG_TAIL))
        return opened.read().decode(errors="replace")
