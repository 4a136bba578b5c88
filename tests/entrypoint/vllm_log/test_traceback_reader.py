"""Tracebacks line by line: chains, groups, ranks, and what ends one."""

from __future__ import annotations

import pytest

from dsv4_serve.entrypoint.vllm_log.reasons import LENGTH, Message
from dsv4_serve.entrypoint.vllm_log.standing import Standing
from dsv4_serve.entrypoint.vllm_log.traceback_reader import Failure, Link, TracebackReader

BEGIN, FRAME, CODE = "Traceback (most recent call last):", '  File "x.py", line 7, in run', "    run(1)"
DIRECT = "The above exception was the direct cause of the following exception:"


def read(*lines: str, level: str = "ERROR", headline: str = "") -> list[Failure]:
    """The failures that begin in these lines."""
    reader = TracebackReader()
    if headline:
        reader.head(headline, 0)
    fed = (reader.feed(line, number, level, "11-22") for number, line in enumerate(lines, 1))
    return [failure for failure in fed if failure]


def link(text: str, **more: bool) -> Link:
    return Link(Message(text), **more)


def test_a_traceback_is_one_failure_with_its_place_and_time() -> None:
    (failure,) = read(BEGIN, FRAME, CODE, "ValueError: x", "and more")
    assert (failure.number, failure.time, failure.fatal) == (4, "11-22", True)
    assert failure.texts() == ["ValueError: x"]
    assert failure.links[0].message.code == "run(1)"
    assert failure.links[0].message.details == ["and more"]


@pytest.mark.parametrize(
    ("headline", "fatal"),
    [("", True), ("EngineCore failed to start.", True), ("Error in completion stream generator.", False)],
)
def test_it_is_fatal_by_its_headline(headline: str, fatal: bool) -> None:
    assert [failure.fatal for failure in read(BEGIN, FRAME, CODE, "ValueError: x", headline=headline)] == [fatal]


def test_a_headline_belongs_to_one_traceback() -> None:
    one = (BEGIN, FRAME, CODE, "ValueError: x")
    first, second = read(*one, *one, headline="Error in completion stream generator.")
    assert (first.fatal, second.fatal) == (False, True)


def test_a_headline_belongs_to_a_whole_chain() -> None:
    one = (BEGIN, FRAME, CODE, "ValueError: x")
    reader = TracebackReader()
    reader.head("Error in completion stream generator.", 0)
    for number, line in enumerate([*one, DIRECT, *one], 1):
        reader.feed(line, number, "ERROR", "")
    assert reader.headline
    assert reader.failure
    assert len(reader.failure.links) == 2


def test_a_warning_is_no_failure_and_its_chain_neither() -> None:
    one = (BEGIN, FRAME, CODE, "ValueError: x")
    assert read(*one, DIRECT, *one, level="WARNING") == []


def test_a_reader_is_reading_until_the_exception_and_between_two_of_a_chain() -> None:
    reader, reading = TracebackReader(), []
    for number, line in enumerate([BEGIN, FRAME, CODE, "ValueError: x", DIRECT, BEGIN, "KeyError: 'y'"], 1):
        reader.feed(line, number, "ERROR", "")
        reading.append(reader.reading)
    assert reading == [True, True, True, False, True, True, False]


def test_a_chain_without_a_beginning_begins_with_what_follows() -> None:
    (failure,) = read(DIRECT, BEGIN, FRAME, CODE, "ValueError: x")
    assert failure.texts() == ["ValueError: x"]


def test_a_headline_ends_what_was_before_it() -> None:
    reader = TracebackReader()
    for number, line in enumerate([BEGIN, FRAME, CODE, "ValueError: x", DIRECT], 1):
        reader.feed(line, number, "ERROR", "")
    reader.head("WorkerProc hit an exception.", 6)
    assert not reader.reading
    assert reader.failure is None


def test_an_exception_without_a_message_has_the_last_line_of_source() -> None:
    (failure,) = read(BEGIN, FRAME, "    assert a == b", "    ^^^^", "AssertionError")
    assert failure.texts() == ["AssertionError: assert a == b"]
    (colon,) = read(BEGIN, FRAME, "    run(2)", "TimeoutError:")
    assert colon.texts() == ["TimeoutError: run(2)"]


def test_lines_of_source_are_not_carried_into_the_next_traceback() -> None:
    _, second = read(BEGIN, FRAME, "    assert a", "AssertionError", BEGIN, "TimeoutError")
    assert second.links[0].message.code == ""


@pytest.mark.parametrize("function", ["_cleanup", "shutdown"])
def test_what_is_met_while_cleaning_up_follows_from_something_else(function: str) -> None:
    inside = f'  File "x.py", line 7, in {function}'
    (failure,) = read(BEGIN, inside, CODE, FRAME, CODE, "OSError: x")
    assert failure.standing is Standing.CONSEQUENCE
    (after,) = read(BEGIN, inside, CODE, "OSError: x", BEGIN, FRAME, CODE, "OSError: y")[1:]
    assert after.standing is Standing.CAUSE


def test_lines_of_a_group_and_of_a_rank_are_read_without_their_marks() -> None:
    group = read("  + Exception Group Traceback (most recent call last):", "  |   File", "  | ExceptionGroup: two")
    assert group[0].texts() == ["ExceptionGroup: two"]
    (rank,) = read(*(f"[rank3]: {line}" for line in (BEGIN, FRAME, CODE, "ValueError: x")))
    assert rank.texts() == ["ValueError: x"]


def test_the_root_is_the_last_solid_link_of_the_likeliest_kind() -> None:
    a, b = link("KeyError: 'a'"), link("ValueError: b")
    pipe, wrapper = (
        link("BrokenPipeError: [Errno 32] Broken pipe"),
        link("CalledProcessError: returned non-zero exit status 1"),
    )
    assert Failure([a, b], 1, True).root is b
    assert Failure([a, b, pipe], 1, True).root is b
    assert Failure([a, wrapper], 1, True).root is a
    assert Failure([wrapper], 1, True).root is wrapper
    assert Failure([pipe, wrapper], 1, True).root is pipe
    assert Failure([link("Error"), Link(Message("OSError", bare=True))], 1, True).root.text == "Error"


def test_a_wrapper_with_a_reason_or_details_is_solid() -> None:
    wrapper = "RuntimeError: Ninja build failed"
    assert Link(Message(wrapper)).hollow
    assert not Link(Message(wrapper, reason="a.cu: error: x")).hollow
    assert not Link(Message(wrapper, details=["x"])).hollow
    assert Link(Message("TimeoutError: run(2)", bare=True, code="run(2)")).hollow
    assert not Link(Message("AssertionError: assert a", bare=True, code="assert a")).hollow


def test_other_links_are_told_newest_first_and_only_causes() -> None:
    links = [link("KeyError: 'a'"), link("TypeError: c"), link("BrokenPipeError: Broken pipe"), link("ValueError: b")]
    assert Failure(links, 1, True).texts() == ["ValueError: b", "TypeError: c", "KeyError: 'a'"]


def test_a_standing_is_judged_by_the_beginning_of_a_long_line() -> None:
    assert link("ValueError: " + "x" * (2 * LENGTH - 12) + "Broken pipe").standing is Standing.CAUSE
    assert link("ValueError: " + "x" * (2 * LENGTH - 23) + "Broken pipe").standing is Standing.CONSEQUENCE
    (failure,) = read(BEGIN, FRAME, CODE, "ValueError: " + "x" * 5 * LENGTH)
    assert len(failure.links[0].message.headline) == 4 * LENGTH


def test_lines_between_two_tracebacks_of_a_chain_are_no_links() -> None:
    (failure,) = read(BEGIN, FRAME, CODE, "KeyError: 'a'", DIRECT, "OSError: x", BEGIN, FRAME, CODE, "ValueError: b")
    assert [one.message.headline for one in failure.links] == ["KeyError: 'a'", "ValueError: b"]


def test_a_message_goes_on_with_the_last_exception_of_a_chain() -> None:
    one = (BEGIN, FRAME, CODE, "KeyError: 'a'", DIRECT, BEGIN, FRAME, CODE, "ValueError: b", "and this")
    (failure,) = read(*one)
    assert [one.message.details for one in failure.links] == [[], ["and this"]]


def test_a_file_whose_name_sounds_like_cleaning_cleans_nothing() -> None:
    (failure,) = read(BEGIN, '  File "/x/cleanup/shutdown.py", line 7, in run', CODE, "OSError: x")
    assert failure.standing is Standing.CAUSE
    assert Link(Message("OSError: x")).standing is Standing.CAUSE


def test_a_traceback_below_a_message_that_announces_it_is_the_cause_of_that_message() -> None:
    inner = (BEGIN, FRAME, CODE, "ValueError: of the child")
    for between in ((), ("", "-- Process 3 terminated with the following error:")):
        (failure,) = read(BEGIN, FRAME, CODE, "RuntimeError: the child failed:", *between, *inner)
        assert failure.texts()[0] == "ValueError: of the child"
    assert len(read(BEGIN, FRAME, CODE, "RuntimeError: the child failed:", "no, it did not", *inner)) == 2
    assert len(read(BEGIN, FRAME, CODE, "RuntimeError: it failed", *inner)) == 2


def test_an_exception_of_a_thread_is_told_from_others() -> None:
    one = (BEGIN, FRAME, CODE, "ValueError: x")
    (thread,), (other,) = read(*one, headline="Exception in thread Thread-1:"), read(*one, headline="Exception in ASGI")
    assert (thread.in_thread, thread.fatal, other.in_thread) == (True, False, False)
