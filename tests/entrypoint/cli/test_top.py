"""`dsv4 top` on a terminal, in a pipe and on a dumb terminal, before a real health server."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dsv4_serve.healthcheck import app
from dsv4_serve.healthcheck.state import Finding, Health
from tests.support import command
from tests.support.patience import slowness

ARGV = [sys.executable, "-m", "dsv4_serve.entrypoint", "top"]
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    health = Health(started=0.0, phase="ready", phase_began=90.0, progressed=100.0)
    health.engine, health.generated_after, health.ready_after = 17, 80.0, 90.0
    health.gate, health.corruption = Finding("91%"), Finding("8 of 8")

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            scope = {"method": "GET", "path": path, "query_string": query.encode(), "headers": []}
            given = app.answer(health, 100.0, scope)
            self.send_response(given.status)
            self.end_headers()
            self.wfile.write(given.body if isinstance(given.body, bytes) else given.body.encode())

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *argv: str, term: str = "xterm", **env: str) -> None:
        self.master, slave = pty.openpty()
        self.size(24, 80)
        self.before = termios.tcgetattr(slave)
        environ = {**os.environ, "TERM": term, "LINES": "50", "COLUMNS": "132", **env}
        self.process = subprocess.Popen(
            [*ARGV, *argv], stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - two system calls
        )  # fmt: skip
        self.slave, self.text = slave, ""

    def size(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, text: str, seconds: float = 20) -> str:
        """Return what is printed until this text comes; then forget it."""
        end = time.monotonic() + seconds * slowness()
        while text not in self.text:
            assert time.monotonic() < end, f"no {text!r} in {self.text!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 65536).decode()
        seen, self.text = self.text, ""
        return seen

    def ends(self) -> int:
        """Return its exit status, with the rest of what it prints in `text`."""
        end = time.monotonic() + 20 * slowness()
        while (status := self.process.poll()) is None or select.select([self.master], [], [], 0)[0]:
            assert time.monotonic() < end
            if select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 65536).decode()
        return status

    def restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before


def test_a_terminal_is_drawn_over_resized_and_given_back(url: str) -> None:
    terminal = Terminal("--health", url, "--every", "0.3")
    first = terminal.until("last exit")
    assert ENTER in first
    assert "ready for" in first
    assert not terminal.restored(), "keys come without Return"
    terminal.size(4, 40)
    assert "more lines" in terminal.until("more lines")
    os.write(terminal.master, b"q")
    assert terminal.ends() == 0
    assert terminal.restored()
    assert LEAVE in terminal.text


@pytest.mark.parametrize(("how", "status"), [(b"\x03", 130), (b"\x1c", -signal.SIGQUIT), (signal.SIGTERM, 143)])
def test_every_way_to_end_it_gives_the_terminal_back(url: str, how: bytes | int, status: int) -> None:
    terminal = Terminal("--health", url)
    terminal.until("last exit")
    if isinstance(how, bytes):
        os.write(terminal.master, how)
    else:
        terminal.process.send_signal(how)
    assert terminal.ends() == status
    assert terminal.restored()
    assert LEAVE in terminal.text
    assert "Traceback" not in terminal.text


def test_no_color_has_no_colour(url: str) -> None:
    terminal = Terminal("--health", url, NO_COLOR="1")
    assert "\x1b[32m" not in terminal.until("last exit")
    terminal.process.kill()


def test_a_dumb_terminal_gets_plain_frames(url: str) -> None:
    terminal = Terminal("--health", url, "--every", "0.2", term="dumb")
    assert "\x1b" not in terminal.until("last exit") + terminal.until("last exit")
    os.write(terminal.master, b"\x03")
    assert terminal.ends() == 130
    assert "Traceback" not in terminal.text


def once(*argv: str) -> subprocess.CompletedProcess[str]:
    return command.run("top", "--once", *argv, env=os.environ)


def test_one_frame_in_a_pipe_is_plain_text(url: str) -> None:
    done = once("--health", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "ready for" in done.stdout


def test_one_frame_as_json_with_a_dead_replica(url: str) -> None:
    done = once("--health", url, "--health", "http://127.0.0.1:1", "--format", "json")
    assert done.returncode == 1
    states = {one["phase"]: one["ready"] for one in json.loads(done.stdout)["replicas"]}
    assert states == {"ready": True, "no answer": False}
