"""Lines of vLLM's log become records; a message or a traceback of many lines is one."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.vllm_log.records import MOST, RecordReader, VllmRecord

CORE = b"(EngineCore pid=7) ERROR 11-29 09:00:00 [core.py:700] "
LOGGED = (
    CORE + b"EngineCore failed to start.\r\n"
    + CORE + b"Traceback (most recent call last):\r\n"
    + CORE + b'  File "core.py", line 1, in run\r\n'
    + CORE + b"\r\n"
    + CORE + b"ValueError: no\n"
)  # fmt: skip
RAW = (
    b"(EngineCore pid=7) Process EngineCore:\n"
    b"(EngineCore pid=7) Traceback (most recent call last):\n"
    b'(EngineCore pid=7)   File "core.py", line 1, in run\n'
    b"(EngineCore pid=7) ValueError: no\n"
    b"(EngineCore pid=7) a second line of the message\n"
)
INFO = b"(APIServer pid=3) INFO 11-29 09:00:00 [api.py:5] "


def read(*chunks: bytes) -> list[VllmRecord]:
    reader = RecordReader()
    return [one for chunk in chunks for one in reader.feed(chunk)] + list(reader.close())


def test_a_logged_traceback_is_one_record() -> None:
    [found] = read(LOGGED)
    assert (found.level, found.first.process, found.first.source) == ("ERROR", "EngineCore", "core.py:700")
    lines = found.message.splitlines()
    assert lines[0] == "EngineCore failed to start."
    assert lines[-1] == "ValueError: no"
    assert len(lines) == 5


@pytest.mark.parametrize("size", [1, 7, 64])
def test_chunks_make_no_difference(size: int) -> None:
    whole = LOGGED + INFO + b"ready\n" + RAW
    chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert [one.message for one in read(*chunks)] == [one.message for one in read(whole)]


def test_a_traceback_that_no_logger_wrote_is_one_record_with_a_level() -> None:
    headline, trace = read(RAW)
    assert (headline.level, headline.message) == ("INFO", "Process EngineCore:")
    assert trace.level == "ERROR"
    assert trace.message.startswith("Traceback (most recent call last):\n  File")
    assert trace.message.endswith("ValueError: no\na second line of the message")


def test_processes_that_write_at_once_are_kept_apart() -> None:
    other = RAW.replace(b"EngineCore pid=7", b"Worker_TP1 pid=8")
    mixed = b"\n".join(line for pair in zip(RAW.split(b"\n"), other.split(b"\n"), strict=True) for line in pair)
    traces = [one for one in read(mixed) if one.level == "ERROR"]
    assert {one.first.process for one in traces} == {"EngineCore", "Worker_TP1"}
    assert {len(one.texts) for one in traces} == {4}


def test_two_records_of_one_place_and_second_stay_two() -> None:
    assert [one.message for one in read(INFO + b"a\n" + INFO + b"b\n")] == ["a", "b"]
    assert [one.message for one in read(LOGGED + LOGGED)] == [read(LOGGED)[0].message] * 2


def test_an_exception_below_uvicorn_s_headline_belongs_to_it() -> None:
    text = b"ERROR:    Exception in ASGI application\nTraceback (most recent call last):\n  File x\n\nKeyError: 1\n"
    [found] = read(text)
    assert (found.level, len(found.texts)) == ("ERROR", 5)


def test_the_usage_of_a_request_that_failed_is_no_part_of_its_traceback() -> None:
    usage = b'{"event": "request", "name": "bob", "status": 500}'
    text = b"ERROR:    Exception in ASGI application\nTraceback (most recent call last):\nKeyError: 1\n" + usage + b"\n"
    assert [(one.level, one.message) for one in read(text)][1:] == [("INFO", usage.decode())]


def test_a_progress_bar_shows_its_last_state_and_colours_go() -> None:
    assert [one.message for one in read(b"  0%|\r 50%|\r100%| done\n\x1b[32mok\x1b[0m\n")] == ["100%| done", "ok"]


def test_records_that_may_go_on_wait_and_others_do_not() -> None:
    reader = RecordReader()
    assert [one.message for one in reader.feed(INFO + b"ready\n")] == ["ready"]
    assert not reader.waits
    assert list(reader.feed(LOGGED)) == []
    assert reader.waits
    assert len(list(reader.flush())) == 1
    assert not reader.waits


def test_a_record_has_a_bound() -> None:
    line = b"  %s\n" % (b"x" * 61)
    found = read(b"Traceback (most recent call last):\n" + line * (4 * MOST // len(line)))
    assert MOST < max(one.size for one in found) < MOST + len(line)
    assert len(read(b"x" * (3 * MOST) + b"\n")[0].message) == MOST
