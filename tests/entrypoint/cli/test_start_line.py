"""The line of a start on a terminal: below messages and vLLM's log, gone once the replica is ready, and none in a pipe."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint.cli import start_line
from dsv4_serve.entrypoint.cli.output import ABOVE, print_message
from dsv4_serve.entrypoint.cli.start_line import StartLine, Write
from dsv4_serve.entrypoint.client.local_replica import free_port
from dsv4_serve.entrypoint.supervisor.vllm_process import write_all
from dsv4_serve.healthcheck.state import Health
from tests.support.patience import slowness
from tests.support.program import executable

XTERM = {"TERM": "xterm"}
SHOWN = re.compile(r"\rloading weights: 43 % at 1\.5 GiB/s, shard 3 of 35, \d+ s in this phase[^\r\n]*\x1b\[K")


class Terminal:
    """A pseudo-terminal: what is written to `out` can be read."""

    def __init__(self) -> None:
        self.master, self.out = pty.openpty()
        self.stream = os.fdopen(self.out, "w", closefd=False)

    def read(self) -> str:
        """Return what has been written, with single line feeds."""
        parts = []
        while select.select([self.master], [], [], 0)[0]:
            parts.append(os.read(self.master, 1 << 16))
        return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("COLUMNS", "200")
    made = Terminal()
    yield made
    os.close(made.master)
    os.close(made.out)


def loading() -> Health:
    health = Health()
    health.enter("loading weights")
    health.percent, health.rate, health.detail = 43.2, 1.5 * 2**30, "shard 3 of 35"
    return health


def line_and_write(terminal: Terminal, health: Health | None) -> tuple[StartLine, Write]:
    line = StartLine(terminal.stream, XTERM)
    line.health = health
    write = line.writer(write_all)
    assert write
    return line, write


def test_the_log_passes_above_the_line(terminal: Terminal) -> None:
    _, write = line_and_write(terminal, loading())
    assert write(terminal.out, b"INFO one\n")
    first = terminal.read()
    assert first.startswith("INFO one\n")
    assert SHOWN.fullmatch(first.removeprefix("INFO one\n"))
    assert write(terminal.out, b"INFO two\n")
    second = terminal.read()
    assert second.startswith("\r\x1b[KINFO two\n")
    assert SHOWN.fullmatch(second.removeprefix("\r\x1b[KINFO two\n"))


def test_a_bar_that_is_written_over_passes_once_and_last(terminal: Terminal) -> None:
    _, write = line_and_write(terminal, loading())
    for part in (b"\rshards:   0%", b"\rshards:  50%", b"\rshar", b"ds: 100%\r", b"\nINFO after\n"):
        write(terminal.out, part)
    text = SHOWN.sub("", terminal.read()).replace("\r\x1b[K", "")
    assert text == "shards: 100%\nINFO after\n"


def test_an_endless_line_is_not_held_without_end(terminal: Terminal) -> None:
    written: list[bytes] = []
    line = StartLine(terminal.stream, XTERM)
    line.health = loading()
    write = line.writer(lambda _out, chunk: bool(written.append(chunk)) or True)
    assert write
    for _ in range(3):
        write(terminal.out, b"x" * (start_line.HELD // 2 + 1))
    assert b"".join(written) == b"x" * 2 * (start_line.HELD // 2 + 1)


def test_before_the_first_phase_and_once_ready_everything_passes(terminal: Terminal) -> None:
    line, write = line_and_write(terminal, None)
    write(terminal.out, b"before\n")
    assert terminal.read() == "before\n"
    line.health = loading()
    write(terminal.out, b"one\n")
    write(terminal.out, b"half a ")
    assert SHOWN.search(terminal.read())
    line.health.ready_after = 12.0
    write(terminal.out, b"line\n")
    write(terminal.out, b"\rbar 50%")
    assert terminal.read() == "\r\x1b[Khalf a line\n\rbar 50%"


def test_half_a_line_that_waits_passes_once_ready(terminal: Terminal) -> None:
    line, write = line_and_write(terminal, loading())
    write(terminal.out, b"half a ")
    assert line.health
    line.health.ready_after = 12.0
    line._draw()
    write(terminal.out, b"line\n")
    assert terminal.read().endswith("half a line\n")


def test_an_end_before_ready_takes_the_line_away(terminal: Terminal) -> None:
    line, write = line_and_write(terminal, loading())
    write(terminal.out, b"one\n")
    assert line.health
    line.health.ended = "it died"
    write(terminal.out, b"two\n")
    text = terminal.read()
    assert SHOWN.search(text)
    assert text.endswith("\r\x1b[Ktwo\n")


def test_a_terminal_that_is_gone_ends_nothing(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    line, write = line_and_write(terminal, loading())
    write(terminal.out, b"one\n")

    def gone(_text: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(terminal.stream, "write", gone)
    assert write(terminal.out, b"two\n")
    with line:
        pass
    assert "two\n" in terminal.read()


def test_what_goes_to_a_file_stays_as_it_is(terminal: Terminal, tmp_path: Path) -> None:
    _, write = line_and_write(terminal, loading())
    with (tmp_path / "log").open("wb") as file:
        write(file.fileno(), b"\rbar 50%")
    assert (tmp_path / "log").read_bytes() == b"\rbar 50%"
    assert not terminal.read()


def test_it_is_drawn_without_any_message_and_messages_stand_above(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_line, "PAUSE", 0.01)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    seen, before = "", ABOVE.line
    with StartLine(terminal.stream, XTERM) as line:
        line.health = loading()
        until = time.monotonic() + 10 * slowness()
        while not SHOWN.search(seen) and time.monotonic() < until:
            seen += terminal.read()
        print_message("said")
    seen += terminal.read()
    assert SHOWN.search(seen)
    assert "\r\x1b[Kdsv4: said\n" in seen
    assert seen.endswith("\x1b[K")
    assert ABOVE.line is before


def test_there_is_none_in_a_pipe_or_in_a_log_of_objects(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert StartLine(io.StringIO(), XTERM).writer(write_all) is None
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    assert start_line.to_stderr(json=False).writer(write_all)
    assert start_line.to_stderr(json=True).writer(write_all) is None


@pytest.mark.process
@pytest.mark.slow
def test_serve_on_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    """A start with the stand-in for vLLM: a line for each half second, then only whole lines of its log remain."""
    model = write_checkpoint(tmp_path / "model")
    environ = os.environ | {
        "TERM": "xterm",
        "PROFILE": "demo",
        "MODEL": f"demo={model}",
        "PORT": str(free_port()),
        "DSV4_HEALTH_PORT": "0",
        "DSV4_RUN_DIR": str(tmp_path / "run"),
        "DSV4_CACHE": str(tmp_path / "cache"),
        "DSV4_VLLM": str(executable(tmp_path / "vllm", "tests.support.stand_in")),
    }
    argv = [sys.executable, "-m", "dsv4_serve.entrypoint", "serve"]
    pid = os.posix_spawn(
        sys.executable,
        argv,
        environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, terminal.out, 1), (os.POSIX_SPAWN_DUP2, terminal.out, 2)],
    )
    text, until = "", time.monotonic() + 60 * slowness()
    try:
        while "s after start" not in text and time.monotonic() < until:
            text += terminal.read()
            time.sleep(0.05)
    finally:
        os.kill(pid, 15)
        _, status = os.waitpid(pid, 0)
    text += terminal.read()
    assert re.search(r"\rstarting: [^\r\n]*s in this phase, \d+ s since start\x1b\[K", text), text[-3000:]
    assert re.search(r"(\x1b\[K|\n)dsv4: ready \d+ s after start", text), text[-3000:]
    assert "\x1b[K" not in text[text.index("s after start") :]
    assert os.waitstatus_to_exitcode(status) == 0
