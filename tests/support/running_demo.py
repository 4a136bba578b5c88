"""`make demo` once for all tests that type what it prints or what docs/how-to/clients.md says, and once with a key."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint import procfs
from dsv4_serve.entrypoint.client import local_replica
from dsv4_serve.entrypoint.client.endpoint import Endpoint
from tests.support.patience import slowness
from tests.support.replica import Replica, replica

COMMAND = (sys.executable, "-m", "dsv4_serve.demo")
NAME = "deepseek-v4-flash"
PATIENT = {"DSV4_SUPERVISE_STALL_STARTING": "900", "DSV4_SUPERVISE_LIVE_GRACE": "900"}
"""A busy machine imports vLLM for minutes, and logs nothing meanwhile."""
SILENT = {f"DSV4_SUPERVISE_{name}_EVERY": "36000" for name in ("IDLE_CANARY", "CORRUPTION")}
"""The supervisor asks for no token of its own."""
TOKENS = 60
LAST_LINE = re.compile(r"dsv4 bench")


@dataclass(frozen=True)
class Demo:
    """A demo that is up: what it printed, and the URL of the server."""

    printed: str
    url: str

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.url)

    def suggestion(self, word: str) -> str:
        """Return the printed command that has this word."""
        (line,) = [line for line in self.printed.splitlines() if line.startswith("  ") and word in line]
        return line


def read_until(process: subprocess.Popen[str], mark: re.Pattern[str]) -> str:
    """Return what a process prints until a line with this mark; fail if it ends before."""
    printed = ""
    assert process.stdout
    for line in process.stdout:
        printed += line
        if mark.search(line):
            return printed
    pytest.fail(f"the demo ended before it printed {mark.pattern!r}:\n{printed}")


@pytest.fixture(scope="session")
def running_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """
    Start the demo on a free port, and end it by Ctrl-C while it streams: it cuts no stream and leaves no process behind.

    Its supervisor asks for no token of its own, so that a test can count those of its requests.
    """
    folder, port = tmp_path_factory.mktemp("demo"), local_replica.free_port()
    command = [*COMMAND, "--profile", "demo", "--folder", str(folder), "--port", str(port), "--limit", "1800"]
    settings = {**PATIENT, **SILENT, "DSV4_SUPERVISE_DRAIN_WAIT": "0"}
    demo = subprocess.Popen(
        command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=_root()
    )
    children: list[psutil.Process] = []
    rest: list[str] = []
    reader = threading.Thread(target=lambda: rest.extend(demo.stdout or ()), daemon=True)
    try:
        printed = read_until(demo, LAST_LINE)
        reader.start()  # a pipe that nobody reads would stop the demo once it is full
        children = procfs.descendants(demo.pid)
        url = re.findall(r"http://\S+?(?=/v1)", printed)[0]
        yield Demo(printed, url)
        log = Path(re.findall(r"^log +(\S+)$", printed, re.MULTILINE)[0])
        running = Replica(demo, int(url.rpartition(":")[2]), 0, log, folder, "demo")
        streams = [running.stream(TOKENS, f"Story {number}:") for number in range(6)]  # the profile runs four at once
        running.until(lambda: all(s.accepted.is_set() for s in streams) and any(s.got for s in streams), 60, "streams")
        demo.send_signal(signal.SIGINT)
        status = demo.wait(60 * slowness())
        reader.join(10 * slowness())
        assert status == 0, "".join(rest)[-3000:]
        running.until(lambda: all(stream.done or stream.error for stream in streams), 30, "every stream ended")
        assert [stream for stream in streams if stream.error or not stream.done or stream.got != TOKENS] == []
        assert "dsv4: drained (exit status 0)" in running.log_text()
    finally:
        demo.kill()
    assert len(children) > 1
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="session")
def keyed_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Replica]]:
    """The replica of `keyed_demo`; another one once a test has ended the last."""
    with ExitStack() as stack:
        running: list[Replica] = []

        def start() -> Replica:
            if not running or running[-1].process.poll() is not None:
                running.append(stack.enter_context(_keyed(tmp_path_factory)))
            return running[-1]

        yield start


@pytest.fixture
def keyed_demo(keyed_start: Callable[[], Replica]) -> Replica:
    """
    A replica as the README starts it: under DeepSeek's name, with a key in `secrets/api-key` of its folder.

    It may still be loading, so that a test can wait as the README does.
    """
    return keyed_start()


def _keyed(tmp_path_factory: pytest.TempPathFactory) -> AbstractContextManager[Replica]:
    folder = tmp_path_factory.mktemp("keyed")
    key = folder / "secrets/api-key"
    key.parent.mkdir()
    key.write_text("ab" * 32 + "\n")
    settings: dict[str, Any] = {
        "PROFILE": "demo",
        "MODEL": f"demo={write_checkpoint(folder / 'checkpoint')}",
        "API_KEY_FILE": str(key),
    }
    return replica(folder, model_name=NAME, SERVED_MODEL_NAME=NAME, **PATIENT, **settings)


def _root() -> Path:
    return Path(__file__).parents[2]
