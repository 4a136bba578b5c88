"""Bytes of a log into lines, and lines into their parts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.vllm_log.parser import JSON_BYTES, LINE_BYTES, LogLine, Splitter


def lines_of(*chunks: bytes) -> list[str]:
    splitter = Splitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.close()


def test_a_progress_bar_is_one_line_for_each_of_its_states() -> None:
    bar = b"\rLoading shards:   0%\rLoading shards:  50%\rLoading shards: 100%\n\ndone\n"
    assert lines_of(bar) == ["Loading shards:   0%", "Loading shards:  50%", "Loading shards: 100%", "done"]


def test_the_newest_state_of_a_progress_bar_can_be_looked_at() -> None:
    splitter = Splitter()
    assert splitter.feed(b"\rLoading shards:  50%") == []
    assert splitter.rest == "Loading shards:  50%"
    assert splitter.feed(b"\rLoading") == ["Loading shards:  50%"]


@given(st.lists(st.sampled_from([b"abc", b"\n", b"\r", b"\xff", "ä".encode(), b" "]), max_size=20), st.data())
def test_where_chunks_end_does_not_matter(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    cut = data.draw(st.integers(0, len(whole)))
    assert lines_of(whole[:cut], whole[cut:]) == lines_of(whole)


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    assert lines_of(b"a\xff\xfeb\n") == ["a\ufffd\ufffdb"]


def test_of_a_line_of_a_megabyte_the_beginning_is_kept() -> None:
    chunks = [b"x" * 65536] * 16
    assert lines_of(b"begin ", *chunks, b"\nnext\n") == ["begin " + "x" * (LINE_BYTES - 6), "next"]


def test_a_line_cut_within_a_character_survives() -> None:
    (line,) = lines_of("€".encode() * LINE_BYTES)
    assert line.startswith("€€€")
    assert len(line.encode(errors="replace")) <= LINE_BYTES + 3


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (
            "(Worker_TP1 pid=17) ERROR 11-22 04:11:57 [core.py:15] CUDA error",
            LogLine("CUDA error", "Worker_TP1", "ERROR", "core.py:15"),
        ),
        (
            "(VllmWorker-0 pid=1) WARNING 11-22 06:21:06 [vllm.py:7] x",
            LogLine("x", "VllmWorker-0", "WARNING", "vllm.py:7"),
        ),
        (
            "(RayWorkerWrapper pid=9, ip=10.0.0.2) ERROR 11-22 04:11:57 [core.py:15] x",
            LogLine("x", "RayWorkerWrapper", "ERROR", "core.py:15"),
        ),
        ('INFO:     127.0.0.1:1 - "GET /" 200 OK', LogLine('127.0.0.1:1 - "GET /" 200 OK', level="INFO")),
        ("KeyError: 'x'", LogLine("KeyError: 'x'")),
        ("    raise e", LogLine("    raise e")),
    ],
)
def test_a_line_says_who_wrote_it_and_how_grave_it_is(line: str, parsed: LogLine) -> None:
    assert LogLine.parse(line) == parsed


def test_colors_are_taken_off() -> None:
    assert lines_of(b"\x1b[32m(EngineCore pid=1)\x1b[0;0m INFO 11-22 04:11:57 [a.py:1] x\n") == [
        "(EngineCore pid=1) INFO 11-22 04:11:57 [a.py:1] x"
    ]


RECORD = "(EngineCore pid=1) INFO 11-22 04:11:57 [a.py:1] "


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("[replica 3] (eu) " + RECORD + "x", LogLine("x", "EngineCore", "INFO", "a.py:1")),
        (RECORD + "(Worker pid=2) ERROR 11-22 04:11:57 [b.py:1] y", None),  # a text that quotes a record
        ("INFO:     (Worker pid=2) ERROR 11-22 04:11:57 [b.py:1] y", None),
        ("killed pid=7 of 9", LogLine("killed pid=7 of 9")),
        ("123", LogLine("123")),
        ("null", LogLine("null")),
        ("{not json", LogLine("{not json")),
        ('{"model": "m"}', LogLine('{"model": "m"}')),
        ('{"a":' * 50_000, LogLine('{"a":' * 50_000)),
    ],
)
def test_a_prefix_is_read_and_what_only_looks_like_a_record_is_text(line: str, parsed: LogLine | None) -> None:
    found = LogLine.parse(line)
    quoted = LogLine("(Worker pid=2) ERROR 11-22 04:11:57 [b.py:1] y", found.process, "INFO", found.source)
    assert found == (parsed or quoted)


def test_a_json_record_has_the_first_name_that_holds_text() -> None:
    fields = {
        "levelname": "error",
        "message": "",
        "msg": "x",
        "asctime": 123.5,
        "timestamp": "2026-11-22T04:11:57,5",
        "vllm_process_name": "EngineCore",
        "name": "vllm.core",
    }
    found = LogLine.parse(json.dumps(fields))
    assert (found, found.time) == (LogLine("x", "EngineCore", "ERROR", "vllm.core"), "11-22 04:11:57.5")


def test_a_json_record_with_an_exception_has_its_lines_without_the_empty_ones() -> None:
    fields = {"level": "ERROR", "message": "it failed", "exc_info": "Traceback\n\nValueError: x", "name": "core"}
    found = LogLine.parse(json.dumps(fields)).split()
    assert [line.text for line in found] == ["it failed", "Traceback", "ValueError: x"]
    assert {(line.level, line.source) for line in found} == {("ERROR", "core")}
    assert LogLine("x").split() == [LogLine("x")]


def test_a_json_record_that_was_cut_off_has_the_fields_that_are_there() -> None:
    whole = json.dumps({"levelname": "ERROR", "message": 'say "x"', "exc_info": "Traceback\nValueError: é" + "y" * 50})
    assert LogLine.parse(whole[:-20]).text.startswith('say "x"\nTraceback\nValueError: éyyy')
    assert LogLine.parse(whole[: whole.index("\\u00e9") + 3]).text.endswith("ValueError: \\u0")  # cut within a letter


def test_a_json_object_has_room_for_a_whole_traceback_wherever_its_chunks_end() -> None:
    whole = b'{"message": "' + b"x" * (2 * LINE_BYTES) + b'"}'
    assert lines_of(whole[:1], whole[1:100], whole[100:], b"\n") == [whole.decode()]
    (cut,) = lines_of(b"{", *[b"x" * 65536] * 5)
    assert len(cut) == JSON_BYTES
