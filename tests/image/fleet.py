"""What `dsv4 up` or compose started with the CPU image: whom the balancer gives requests, who is ready, and an engine to stop."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from docker.errors import APIError

from dsv4_serve.entrypoint.containers.containers import BALANCER, STATUS_PORT, name_of
from dsv4_serve.entrypoint.containers.daemon import Daemon
from dsv4_serve.entrypoint.containers.observe import published
from dsv4_serve.entrypoint.listen import HEALTH_PORT

STEP = 0.05  # seconds between two looks
OF_A_SERVER = re.compile(r'haproxy_server_(status|check_status)\{proxy="(\w+)",server="(\w+)",state="(\w+)"\} 1')
SIGNAL = """
import os, pathlib, sys
found = [int(f.parent.name) for f in pathlib.Path("/proc").glob("[0-9]*/comm") if f.read_text().startswith("VLLM::Engine")]
[os.kill(pid, int(sys.argv[1])) for pid in found]
print(len(found))
"""


@dataclass(frozen=True)
class Fleet:
    """Two replicas behind the balancer, whose API is on `port`."""

    daemon: Daemon
    port: int

    @property
    def url(self) -> str:
        """The balancer's API."""
        return f"http://127.0.0.1:{self.port}"

    def container(self, name: str) -> Any:
        """One container, as it is now."""
        return self.daemon.client.containers.get(name)

    def in_rotation(self) -> tuple[int, int]:
        """How many get new requests, without and with a session; one that was never checked is left out."""
        port = published(self.container(BALANCER), STATUS_PORT)
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5, trust_env=False).text
        states = {(kind, proxy, server): state for kind, proxy, server, state in OF_A_SERVER.findall(text)}
        up = [key[1:] for key, state in states.items() if key[0] == "status" and state == "UP"]
        checked = [proxy for proxy, server in up if states.get(("check_status", proxy, server), "INI") != "INI"]
        return checked.count("replicas"), checked.count("sessions")

    def until_in_rotation(self, count: int, seconds: float) -> float:
        """Return the seconds until so many get requests."""
        return self.until(lambda: self.in_rotation() == (count, count), seconds, f"{count} in rotation")

    def ready(self, index: int) -> bool:
        """What a replica says itself."""
        return readyz_status(published(self.container(name_of(index)), HEALTH_PORT)) == httpx.codes.OK

    def signal_engine(self, index: int, number: signal.Signals) -> None:
        """Send a signal to vLLM's engine process in a replica; its supervisor and its API server go on."""
        told = self.container(name_of(index)).exec_run(["python", "-c", SIGNAL, str(int(number))])
        assert told.output.decode().strip() == "1", told.output.decode()

    def kill(self, index: int) -> None:
        """
        Send SIGKILL to a replica's container, and return when nothing in it answers any more.

        The kernel ends its processes at once, but gives their memory back when it finds the time, and only then the engine
        says `exited`; podman's answer waits 5 s for that.
        """
        port = published(self.container(name_of(index)), HEALTH_PORT)

        def send() -> None:
            with suppress(APIError):
                self.container(name_of(index)).kill()

        threading.Thread(target=send).start()
        self.until(lambda: readyz_status(port) is None, 10, "silent after SIGKILL")

    def until_exited(self, index: int) -> float:
        """Return the seconds until its container is at its end."""
        return self.until(lambda: self.container(name_of(index)).status == "exited", 30, "exited")

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Return the seconds until it holds; fail with the end of every log."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if condition():
                return time.monotonic() - began
            time.sleep(STEP)
        found = [one for name, one in self.daemon.containers().items() if name.startswith("dsv4-")]
        logs = "\n".join(one.logs(tail=30).decode(errors="replace") for one in found)
        pytest.fail(f"{what}: not in {seconds:.0f} s\n{logs}")


def readyz_status(port: int | None) -> int | None:
    """Return the status with which a health server on this host answers /readyz; None when it does not answer."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5, trust_env=False).status_code
    except httpx.HTTPError:
        return None
