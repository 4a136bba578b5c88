"""A real HAProxy with the configuration that is shipped, and a DNS server that names replicas as Docker's does."""

from __future__ import annotations

import csv
import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.support.patience import slowness
from tests.support.program import find
from tests.support.replica import Late, free_port

CONFIGURATION = Path(__file__).parents[2] / "deploy/haproxy/haproxy.cfg"
KEY = "a-key-of-the-tests"
A, NO_SUCH_NAME = 1, 3


def variables() -> set[str]:
    """Return the names of the environment variables that the shipped configuration reads."""
    program = CONFIGURATION.with_name("keys.lua").read_text()
    of_program = re.findall(r'getenv\("([A-Z_]+)"', program)
    return {*re.findall(r"\$\{([A-Z_]+)[-}[]", CONFIGURATION.read_text()), *of_program}


def haproxy() -> str | None:
    """HAProxy as HAPROXY names it, else as it is installed."""
    return find("haproxy", "HAPROXY")


class Names:
    """A DNS server on the loopback: `replica` has the addresses of `running`, `candidate` those of `candidates`."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.candidates: list[str] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                query, client = self.socket.recvfrom(4096)
                self.socket.sendto(self._answer(query), client)
            except OSError:  # closed
                return

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", 12) + 5
        question, kind = query[12:end], struct.unpack("!H", query[end - 4 : end - 2])[0]
        by_name = {b"\x07replica\0": self.running, b"\x09candidate\0": self.candidates}
        found = next((running for name, running in by_name.items() if question.startswith(name)), [])
        known = bool(found)
        addresses = [socket.inet_aton(address) for address in found] if kind == A else []
        flags = 0x8180 | (0 if known else NO_SUCH_NAME)
        head = query[:2] + struct.pack("!HHHHH", flags, 1, len(addresses), 0, 0)
        records = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 600, 4) + address for address in addresses)
        return head + question + records


@dataclass
class Balancer:
    """A running HAProxy."""

    process: subprocess.Popen[bytes]
    port: int
    status_port: int
    socket: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def until_answers(self, seconds: float = 10.0) -> None:
        began = time.monotonic()
        while not answers(self.port):
            if self.process.poll() is not None or time.monotonic() - began > seconds * slowness():
                raise Late(f"HAProxy does not answer\n{self.log.read_text()}")
            time.sleep(0.02)

    def client(self, key: str | None = KEY, timeout: float = 60.0) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False, verify=False)

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.status_port}/metrics", trust_env=False, verify=False).text

    def tell(self, command: str) -> str:
        """What the administrator's socket answers; nothing before it listens."""
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return ""
            connection.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def up(self, backend: str = "replicas") -> set[str]:
        """Addresses of the replicas that get new requests. One that was never checked gets them too; it is left out."""
        servers = [one for one in self._servers() if one["pxname"] == backend]
        up = [one for one in servers if one["status"].startswith("UP") and "INI" not in one["check_status"]]
        return {one["addr"].rpartition(":")[0] for one in up}

    def addresses(self) -> dict[str, str]:
        """Return the address of each server that has one, by the name that the log gives it: `replicas/replica1`."""
        servers = {f"{one['pxname']}/{one['svname']}": one["addr"].rpartition(":")[0] for one in self._servers()}
        return {name: address for name, address in servers.items() if address}

    def _servers(self) -> list[dict[str, str]]:
        """The servers of all backends, with the columns of HAProxy's statistics."""
        rows = csv.DictReader(self.tell("show stat").removeprefix("# ").splitlines())
        return [row for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")]


@contextmanager
def balancer(folder: Path, names: Names, *, binary: str, key: str = KEY, **env: str) -> Iterator[Balancer]:
    """Run HAProxy in front of what `names` has; `env` are variables of the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    port, status_port = free_port(), free_port()
    (folder / "api-key").write_text(f"{key}\n")
    settings = {
        "PATH": os.environ["PATH"],
        "BALANCER_PORT": str(port),
        "BALANCER_STATUS_PORT": str(status_port),
        "BALANCER_SOCKET": str(folder / "admin.sock"),
        "API_KEY_FILE": str(folder / "api-key"),
        "REPLICA_DNS": f"127.0.0.1:{names.port}",
    }
    log = folder / "haproxy.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [binary, "-W", "-db", "-f", str(CONFIGURATION)], env=settings | env, stdout=out, stderr=subprocess.STDOUT
        )
    running = Balancer(process, port, status_port, folder / "admin.sock", log)
    try:
        running.until_answers()
        yield running
    finally:
        family = (
            [psutil.Process(process.pid), *psutil.Process(process.pid).children()] if process.poll() is None else []
        )
        for member in family:
            member.kill()
        process.wait()


def answers(port: int) -> bool:
    """Tell whether something listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


__all__ = ["CONFIGURATION", "KEY", "Balancer", "Late", "Names", "answers", "balancer", "free_port", "haproxy"]
