"""Which failure of a log is its root, line by line: what is kept, for how long, and what goes first."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from dsv4_serve.entrypoint.vllm_log.parser import LogLine
from dsv4_serve.entrypoint.vllm_log.reasons import LENGTH
from dsv4_serve.entrypoint.vllm_log.root_cause import BURST, KEPT, NEAR, READERS, LogNotes
from dsv4_serve.entrypoint.vllm_log.standing import Standing

FRAMES = ("Traceback (most recent call last):", '  File "x.py", line 7, in run', "    run(1)")
WORK = LogLine("Avg generation throughput: 9 tokens/s", "APIServer", "INFO", "loggers.py:1")


def line(text: str, process: str = "EngineCore", level: str = "ERROR", time: str = "") -> LogLine:
    return LogLine(text, process, level, "core.py:1", time)


def plain(text: str) -> LogLine:
    """A line that no logger wrote."""
    return LogLine(text)


def failed(
    error: str, headline: str = "EngineCore encountered a fatal error.", process: str = "EngineCore", time: str = ""
) -> list[LogLine]:
    return [line(text, process, time=time) for text in (headline, *FRAMES, error)]


def survived(error: str) -> list[LogLine]:
    """An error that a request met."""
    return failed(error, "Exception in ASGI application", "APIServer")


def notes(*lines: LogLine | Iterable[LogLine]) -> LogNotes:
    found = LogNotes()
    for one in lines:
        for each in [one] if isinstance(one, LogLine) else one:
            found.feed(each)
    return found


def roots(*lines: LogLine | Iterable[LogLine]) -> list[str]:
    return [root.text for root in notes(*lines).roots()]


def test_a_request_that_failed_is_a_root_only_shortly_after_and_where_nothing_fatal_is() -> None:
    met = survived("ValueError: x")
    assert roots(met, [WORK] * (BURST - 1)) == ["ValueError: x"]
    assert roots(met, [WORK] * BURST) == []
    assert roots(met, failed("KeyError: 'y'")) == ["KeyError: 'y'"]
    assert {(root.fatal, root.standing) for root in notes(met).roots()} == {(False, Standing.CAUSE)}


def test_echoes_of_a_request_are_not_kept() -> None:
    assert roots(survived("EngineDeadError: EngineCore encountered an issue.")) == ["Exception in ASGI application"]


def test_a_root_has_the_other_causes_of_its_chain() -> None:
    chain = [line(text) for text in (*FRAMES, "KeyError: 'inner'")]
    direct = line("The above exception was the direct cause of the following exception:")
    (root,) = notes(
        line("EngineCore failed to start."), chain, direct, [line(t) for t in (*FRAMES, "ValueError: x")]
    ).roots()
    assert (root.text, root.others, root.fatal) == ("ValueError: x", ("KeyError: 'inner'",), True)


def test_what_failed_before_a_time_of_ordinary_work_is_forgotten_for_a_new_cause_and_not_for_an_echo() -> None:
    first, second = failed("ValueError: first"), failed("ValueError: second")
    echo = failed("RuntimeError: Worker failed with error 'x'")
    assert roots(first, [WORK] * BURST, second) == ["ValueError: first", "ValueError: second"]
    assert roots(first, [WORK] * (BURST + 1), second) == ["ValueError: second"]
    assert roots(first, [WORK] * (BURST + 1), echo)[0] == "ValueError: first"


def test_work_between_failures_is_counted_anew_after_each() -> None:
    first, second, third = (failed(f"ValueError: {n}") for n in range(3))
    some = [WORK] * (BURST * 2 // 3)
    assert len(roots(first, some, second, some, third)) == 3


def test_each_standing_keeps_its_first_ones() -> None:
    causes = roots(*(failed(f"ValueError: {n}") for n in range(KEPT + 2)))
    assert causes == [f"ValueError: {n}" for n in range(KEPT)]
    both = roots(*(failed(f"BrokenPipeError: {n}") for n in range(KEPT + 2)), failed("ValueError: x"))
    assert both == ["ValueError: x", *(f"BrokenPipeError: {n}" for n in range(KEPT))]


def test_an_echo_is_kept_once_and_equal_causes_of_two_ranks_both() -> None:
    echo = failed("RuntimeError: Worker failed with error 'x'")
    assert len(roots(echo, echo)) == 1
    assert len(roots(failed("ValueError: x"), failed("ValueError: x", process="Worker_TP1"))) == 2


def test_causes_come_first_then_what_was_first_by_time_then_by_line() -> None:
    late, early = failed("ValueError: late", time="09-07 10:00:09"), failed("KeyError: 'early'", time="09-07 10:00:01")
    pipe = failed("BrokenPipeError: gone", time="09-07 09:00:00")
    assert roots(pipe, late, early) == ["KeyError: 'early'", "ValueError: late", "BrokenPipeError: gone"]
    assert roots(failed("ValueError: a"), failed("ValueError: b")) == ["ValueError: a", "ValueError: b"]


def test_january_follows_december_within_one_burst_and_not_otherwise() -> None:
    new, old = failed("ValueError: new", time="01-01 00:00:01"), failed("ValueError: old", time="12-31 23:59:59")
    assert roots(new, old) == ["ValueError: old", "ValueError: new"]
    june = failed("ValueError: june", time="06-01 00:00:00")
    assert roots(june, new) == ["ValueError: new", "ValueError: june"]


def test_a_line_without_a_time_has_that_of_the_last_one() -> None:
    timed = LogLine("Loading", "APIServer", "INFO", "a.py:1", "09-07 10:00:05")
    bare = [plain("Process EngineCore:"), *map(plain, FRAMES), plain("ValueError: bare")]
    early = failed("ValueError: early", time="09-07 10:00:01")
    assert roots(timed, bare, early) == ["ValueError: early", "ValueError: bare"]


@pytest.mark.parametrize(
    "text",
    [
        "vllm serve: error: unrecognized arguments: --x",
        "terminate called without an active exception",
        "!!!!!!! Segfault encountered !!!!!!!",
        "[rank0]:[E1122 04:49:58.3 ProcessGroupNCCL.cpp:632] x",
        "Segmentation fault (core dumped)",
    ],
)
def test_what_no_logger_wrote_is_fatal_by_its_words(text: str) -> None:
    (root,) = notes(plain(text)).roots()
    assert (root.text, root.fatal) == (text, True)
    assert roots(line(text, level="INFO"), plain("nothing of note")) == []


def test_a_logged_error_is_survived_unless_it_says_that_a_process_died() -> None:
    (root,) = notes(line("something failed")).roots()
    assert (root.text, root.fatal) == ("something failed", False)
    (died,) = notes(line("Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.")).roots()
    assert (died.fatal, died.standing) == (True, Standing.ECHO)
    (ended,) = notes(line("[shutdown] MPClient: engine core exited unexpectedly", level="WARNING")).roots()
    assert ended.fatal
    assert roots(line("EngineCore failed to start.")) == []  # a headline: the traceback follows


def test_lines_after_an_exception_go_on_with_its_message() -> None:
    assert roots(failed("ValueError: x"), line("and this is why")) == ["ValueError: x"]
    assert roots(failed("ValueError: x"), line("another thing", process="Worker_TP1")) == ["ValueError: x"]
    other = notes(failed("ValueError: x"), line("Exception in thread 7"))
    assert [root.text for root in other.roots()] == ["ValueError: x"]


def test_a_line_of_the_memory_dump_is_noise() -> None:
    assert roots(line("Dumping input data for V1 LLM engine (v0.32.0)")) == []


def test_a_users_text_at_level_info_is_nothing_but_work() -> None:
    assert roots([line(text, level=level) for level in ("INFO", "DEBUG") for text in (*FRAMES, "ValueError: x")]) == []


def test_what_a_compiler_printed_explains_an_exception_shortly_after_that_does_not() -> None:
    printed, error = plain("a.cu(3): error: no such thing"), failed("RuntimeError: Compilation failed")
    assert roots(printed, error) == ["RuntimeError: Compilation failed: a.cu(3): error: no such thing"]
    between = [WORK] * (NEAR - len(error) - 1)
    assert roots(printed, between, error)[0].endswith("no such thing")
    assert roots(printed, between, WORK, error) == ["RuntimeError: Compilation failed"]
    assert roots(printed, failed("ValueError: x")) == ["ValueError: x"]


def test_of_many_lines_of_a_compiler_the_first_is_told_and_the_last_are_kept() -> None:
    error = failed("RuntimeError: Compilation failed")
    printed = [plain(f"a.cu({n}): error: x") for n in range(KEPT)]
    assert roots(printed, error)[0].endswith("a.cu(0): error: x")
    assert roots(printed, plain("b.cu(0): error: x"), error)[0].endswith("a.cu(1): error: x")


def test_an_assertion_of_a_kernel_explains_a_device_side_assert_and_no_compiler() -> None:
    printed = plain("/x/Index.cu:9: select: block: [0,0,0], thread: [1,0,0] Assertion `i < n` failed.")
    hit = failed("torch.AcceleratorError: CUDA error: device-side assert triggered")
    assert roots(printed, hit)[0].endswith("device-side assert triggered: /x/Index.cu:9: Assertion `i < n` failed.")
    assert roots(printed, failed("RuntimeError: Compilation failed")) == ["RuntimeError: Compilation failed"]
    compiler = plain("a.cu(3): error: x")
    assert roots(compiler, hit) == ["torch.AcceleratorError: CUDA error: device-side assert triggered"]


def test_texts_are_bounded() -> None:
    assert len(roots(plain("terminate called " + "x" * 10 * LENGTH))[0]) == LENGTH
    long = failed("RuntimeError: Compilation failed " + "x" * 10 * LENGTH)
    (told,) = roots(plain("a.cu(3): error: " + "y" * 1000), long)
    assert len(told) == LENGTH
    assert told.startswith("RuntimeError: Compilation failed " + "x" * (LENGTH // 2 - 33) + ": a.cu(3): error: yyy")
    waiting = LogLine("No available shared memory broadcast block found" + "x" * LENGTH, "EngineCore", "INFO", "a.py:1")
    assert len(notes(waiting).waiting) == LENGTH


def test_the_port_and_the_order_to_stop_are_read_at_level_info() -> None:
    arguments = LogLine("non-default args: {'model': 'm', 'port': 8123, 'x': 1}", "APIServer", "INFO", "utils.py:1")
    assert notes(arguments).port == 8123
    assert notes(WORK).port == 8000
    stop = "[shutdown] API server: shutdown triggered"
    stopped = notes(LogLine(stop, "APIServer", "INFO", "launcher.py:1"), failed("ValueError: x"))
    assert stopped.stopped
    assert stopped.roots() == []
    assert not notes(LogLine(stop, "APIServer", "INFO")).stopped  # no logger of vLLM wrote it


def test_writers_do_not_disturb_each_other_and_the_oldest_is_forgotten() -> None:
    one, two = failed("ValueError: one", process="Worker_TP0"), failed("ValueError: two", process="Worker_TP1")
    mixed = [each for pair in zip(one, two, strict=True) for each in pair]
    assert roots(mixed) == ["ValueError: one", "ValueError: two"]
    found = notes(*(failed("ValueError: x", process=f"P{n}") for n in range(READERS + 5)))
    assert len(found._readers) == READERS
    assert ("P0", "core.py:1") not in found._readers
    assert (f"P{READERS + 4}", "core.py:1") in found._readers


def test_a_traceback_that_announces_itself_begins_anew() -> None:
    cut = [line(text) for text in FRAMES]  # its exception was lost
    assert roots(failed("ValueError: one"), cut, failed("KeyError: 'two'")) == ["ValueError: one", "KeyError: 'two'"]


def test_a_crash_within_a_traceback_is_fatal_and_frames_are_no_errors() -> None:
    inside = [*(plain(text) for text in FRAMES), plain("Segmentation fault (core dumped)")]
    assert roots(inside) == ["Segmentation fault (core dumped)"]
    assert roots([line(text) for text in FRAMES]) == []
    assert roots([line(FRAMES[0]), line("Bus error")]) == []  # a logger's words are no crash


def test_a_json_record_is_read_as_its_lines() -> None:
    record = LogLine("\n".join(("Error in completion stream generator.", *FRAMES, "ValueError: x")), "A", "ERROR", "s")
    (root,) = notes(record).roots()
    assert (root.text, root.fatal) == ("ValueError: x", False)
    assert roots(LogLine(" \n ", "A", "ERROR", "s"))[:1] in ([], [""])


def test_a_json_record_has_its_own_headline_after_the_failure_of_another() -> None:
    def record(*lines: str) -> LogLine:
        return LogLine("\n".join(lines), "EngineCore", "ERROR", "core.py:1")

    first = record("EngineCore encountered a fatal error.", *FRAMES, "ValueError: x")
    second = record("A request failed.", *FRAMES, "KeyError: 'y'")
    assert roots(first, second) == ["ValueError: x"]


def test_a_thread_that_failed_is_survived_though_no_logger_wrote_it() -> None:
    (root,) = notes(map(plain, ("Exception in thread Thread-7 (run):", *FRAMES, "ValueError: x"))).roots()
    assert (root.text, root.fatal) == ("ValueError: x", False)


@pytest.mark.parametrize("text", ["collect2: error: ld returned 1 exit status", "nvcc -c a.cu", "nothing of note"])
def test_lines_that_say_no_reason_are_not_kept_for_an_exception(text: str) -> None:
    assert roots(plain(text), failed("RuntimeError: Compilation failed")) == ["RuntimeError: Compilation failed"]


def test_a_warning_is_no_output_of_a_compiler() -> None:
    warned = line("a.cu(3): error: x", level="WARNING")
    assert roots(warned, failed("RuntimeError: Compilation failed")) == ["RuntimeError: Compilation failed"]


def test_two_failures_of_january_keep_their_order() -> None:
    times = {"a": "01-01 00:00:02", "b": "12-31 23:59:59", "c": "01-01 00:00:01"}
    assert roots(*(failed(f"ValueError: {name}", time=time) for name, time in times.items())) == [
        "ValueError: b",
        "ValueError: c",
        "ValueError: a",
    ]


def test_a_headline_gives_way_to_the_exception_below_it() -> None:
    assert roots(failed("ValueError: why", "It did not work")) == ["ValueError: why"]
    both = roots(line("something else"), failed("ValueError: why", "It did not work"))
    assert both == ["something else", "ValueError: why"]


def test_an_exception_of_a_thread_is_the_root_where_a_process_died_without_a_word() -> None:
    thread = [plain("Exception in thread Thread-1 (run):"), *map(plain, FRAMES), plain("MemoryError")]
    died = line("Worker proc VllmWorker-0 died unexpectedly (exit code: 1), shutting down executor.")
    assert roots(thread, died)[0].startswith("MemoryError")
    assert roots(survived("MemoryError"), died) == [died.text]  # a request's
    assert roots(line("something failed"), died) == [died.text]
    assert roots(thread, [WORK] * BURST, died) == [died.text]
    assert roots(thread, failed("ValueError: x")) == ["ValueError: x"]


def test_what_a_compiler_printed_is_the_reason_of_a_pass_that_failed() -> None:
    printed = plain("/app/x.py:30:12: error: LLVM Translation failed for operation: builtin.cast")
    (root,) = roots(printed, failed("RuntimeError: PassManager::run failed", process="Worker_TP0"))
    assert root.endswith(f"failed: {printed.text}")


def test_what_nccl_warned_of_is_the_reason_of_its_error() -> None:
    warned = plain("node:77:123 [0] misc/shmutils.cc:72 NCCL WARN Error: no room in /dev/shm/nccl-x, No space left")
    error = failed("torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:93, unhandled system error")
    (root,) = roots(warned, error)
    assert root.endswith("unhandled system error: NCCL: Error: no room in /dev/shm/nccl-x, No space left")
    assert roots(error) == [error[-1].text]
    assert roots(warned, failed("RuntimeError: Compilation failed")) == ["RuntimeError: Compilation failed"]


@pytest.mark.parametrize(
    "text", ["malloc(): corrupted top size", "double free or corruption (!prev)", "Illegal instruction"]
)
def test_what_the_c_library_said_before_it_aborted_is_the_root(text: str) -> None:
    died = line("Worker proc VllmWorker-1 died unexpectedly (exit code: -6), shutting down executor.")
    assert roots(plain(text), died)[0] == text
