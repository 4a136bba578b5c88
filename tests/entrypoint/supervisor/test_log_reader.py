"""Reading the log: one wake-up of the loop at a time, a bounded backlog that counts what it drops, the end kept."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from dsv4_serve.entrypoint.supervisor import log_reader
from dsv4_serve.entrypoint.supervisor.log_reader import LogReader, LogStream
from tests.support.patience import slowness

LINE = b"x" * 99 + b"\n"
BACKLOG = 1 << 20


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "BACKLOG", BACKLOG)


def test_lines_of_two_streams_arrive_whole_and_in_order() -> None:
    async def read() -> list[str]:
        lines: list[str] = []
        reader = LogReader(lambda line: lines.append(line.text))
        out, err = LogStream(), LogStream()
        for stream, chunk in [(out, b"one\ntw"), (err, b"error\n"), (out, b"o\nthr"), (out, b"ee")]:
            reader.feed(stream, chunk)
        reader.close(out)
        reader.close(err)
        await reader.finish()
        return lines

    assert asyncio.run(read()) == ["one", "error", "two", "three"]


def test_a_burst_wakes_the_loop_once() -> None:
    async def wake_ups() -> int:
        loop, calls = asyncio.get_running_loop(), []
        reader = LogReader(lambda _: None)
        loop.call_soon_threadsafe = lambda *arguments: calls.append(arguments)  # type: ignore[method-assign]
        for _ in range(2000):
            reader.feed(LogStream(), b"line\n")
        return len(calls)

    assert asyncio.run(wake_ups()) == 1


def test_what_comes_too_fast_is_dropped_and_counted_and_the_end_is_read(caplog) -> None:
    async def read() -> list[str]:
        lines: list[str] = []
        reader, stream = LogReader(lambda line: lines.append(line.text)), LogStream()
        for _ in range(3 * BACKLOG // len(LINE)):
            reader.feed(stream, LINE)
        reader.feed(stream, b"the cause\n")
        await reader.finish()
        return lines

    lines = asyncio.run(read())
    assert lines[-1] == "the cause"
    assert set(lines[:-1]) == {"x" * 99}
    dropped = 3 * BACKLOG // len(LINE) + 1 - len(lines)
    assert (len(lines) + 1) * len(LINE) <= BACKLOG + 2 * len(LINE)
    # one line more is left out, since nothing tells whether the first one after the gap is whole
    assert caplog.messages[0].startswith(f"{dropped - 1} lines of vLLM's log came too fast")


def test_a_line_is_never_joined_from_both_sides_of_a_gap() -> None:
    async def read() -> list[str]:
        lines: list[str] = []
        reader, stream = LogReader(lambda line: lines.append(line.text)), LogStream()
        reader.feed(stream, b"begins ")
        reader._read()
        reader.feed(stream, b"y" * BACKLOG)
        reader.feed(stream, b"ends here\nthe next\n")
        await reader.finish()
        return lines

    assert asyncio.run(read()) == ["the next"]


def test_the_loop_is_free_in_a_storm() -> None:
    async def longest() -> float:
        reader, done = LogReader(lambda _: None), threading.Event()

        def storm() -> None:
            stream = LogStream()
            while not done.is_set():
                reader.feed(stream, b"short\n" * 10_000)
                time.sleep(0)

        thread = threading.Thread(target=storm)
        thread.start()
        worst = 0.0
        for _ in range(20):
            began = time.monotonic()
            await asyncio.sleep(0.02)
            worst = max(worst, time.monotonic() - began)
        done.set()
        thread.join()
        return worst

    assert asyncio.run(longest()) < 2.0 * slowness()


def test_an_error_in_one_line_ends_nothing() -> None:
    async def read() -> tuple[list[str], int]:
        lines: list[str] = []
        errors: list[object] = []

        def on_line(line) -> None:
            if line.text == "bad":
                raise ValueError
            lines.append(line.text)

        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        reader = LogReader(on_line)
        reader.feed(LogStream(), b"one\nbad\ntwo\n")
        await asyncio.sleep(0.1)
        return lines, len(errors)

    assert asyncio.run(read()) == (["one", "two"], 1)


def test_reports_of_dropped_lines_are_a_minute_apart(caplog) -> None:
    async def read() -> None:
        reader, stream = LogReader(lambda _: None), LogStream()
        for _ in range(3):
            reader.feed(stream, LINE * (BACKLOG // 50))
            await asyncio.sleep(0.05)
        assert reader._reported > time.monotonic() - log_reader.REPORT_EVERY

    asyncio.run(read())
    assert len(caplog.messages) == 1


def test_the_cause_before_the_echoes_of_a_thousand_requests_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    async def read() -> list[str]:
        lines: list[str] = []
        reader, stream = LogReader(lambda line: lines.append(line.text)), LogStream()
        reader.feed(stream, b"the cause\n")
        for _ in range(100_000):
            reader.feed(stream, LINE)
        await reader.finish()
        return lines

    assert asyncio.run(read())[0] == "the cause"
