"""Why a message of many lines failed, and what it was building."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_serve.entrypoint.vllm_log.reasons import DETAILS, LENGTH, Message, asserted, grade


def text(headline: str, *lines: str, code: str = "") -> str:
    message = Message(headline, code=code)
    for line in lines:
        message.feed(line)
    return message.text()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.cu:2:10: fatal error: cublasLt.h: No such file or directory", 3),
        ("  nvcc fatal   : Unsupported gpu architecture 'compute_130'", 3),
        ('a.cu(3): error: identifier "foo" is undefined', 2),
        ("ValueError: K is too small", 2),
        ("collect2: error: ld returned 1 exit status", 1),
        ("2 errors detected in the compilation", 1),
        ("Killed", 3),
        ("nvcc error   : 'cicc' died due to signal 9 (Kill signal)", 3),
        ("Cuda failure 2 'out of memory'", 3),
        ("nvcc -c a.cu -o a.o", 0),
        ("[3/300] nvcc error: x", 0),
        ("a.cu(3): error: " + "x" * (2000 - 16), 2),
        ("a.cu(3): error: " + "x" * (2001 - 16), 0),
    ],
)
def test_a_compilers_fatal_error_says_most_and_its_echo_least(line: str, expected: int) -> None:
    assert grade(line) == expected


def test_the_surest_line_is_the_reason_and_the_first_among_equals() -> None:
    lines = ("collect2: error: ld returned 1", "a.cu(1): error: first", "a.cu(2): error: second")
    assert text("RuntimeError: Build failed", *lines) == "RuntimeError: Build failed: a.cu(1): error: first"
    fatal = "b.cu:1: fatal error: missing.h"
    assert text("RuntimeError: Build failed", *lines, fatal) == f"RuntimeError: Build failed: {fatal}"


def test_triton_says_why_below_the_place_in_the_source_that_it_marks() -> None:
    source = ("    x = tl.load(p)", "    y = tl.dot(x, w)", "           ^~~")
    why = "Input shapes should have M >= 16"
    placed = "triton.compiler.errors.CompilationError: at 12:11:"
    assert text(placed, *source, "", why, "more") == f"{placed} {why}"
    assert text(placed, *source, why, "a.cu(1): error: x", "fatal error: x.h") == f"{placed} fatal error: x.h"
    assert text(placed, *source, why, "a.cu(1): error: x") == f"{placed} {why}"
    assert text("ValueError: odd:", *source, why) == "ValueError: odd: x = tl.load(p)"


def test_a_reason_that_the_headline_has_is_not_repeated() -> None:
    assert text("ValueError: x", "ValueError: x") == "ValueError: x"


def test_without_a_reason_the_headline_stands_alone_unless_it_announces_more() -> None:
    assert text("ValueError: x", "some line") == "ValueError: x"
    assert (
        text("RuntimeError: tensors differ:", "first line", "second line") == "RuntimeError: tensors differ: first line"
    )
    assert text("RuntimeError: tensors differ:", code="check(a, b)") == "RuntimeError: tensors differ: check(a, b)"
    assert text("RuntimeError: an exception was raised", "first") == "RuntimeError: an exception was raised: first"


def test_hints_rules_and_empty_lines_are_no_details() -> None:
    lines = ("", "  ^~~~", "----", "CUDA kernel errors might be reported later", "the detail")
    assert text("RuntimeError: tensors differ:", *lines) == "RuntimeError: tensors differ: the detail"


def test_of_a_validation_error_the_first_lines_are_told() -> None:
    told = text("ValidationError: 9 validation errors for Config", *(f"field {n}" for n in range(9)))
    fields = " ".join(f"field {n}" for n in range(6))
    assert DETAILS == 6
    assert told == f"ValidationError: 9 validation errors for Config {fields}"


@pytest.mark.parametrize("output", ["Ninja output:", "Compiler output", "Build output:"])
def test_the_announcement_of_output_is_left_out(output: str) -> None:
    assert (
        text(f"RuntimeError: it failed. {output}", "a.cu(1): error: x") == "RuntimeError: it failed: a.cu(1): error: x"
    )


def test_what_was_being_built_is_named_once() -> None:
    lines = ("ninja: Entering directory `/root/.cache/gemm_sm90'", "FAILED: [code=1] gemm.o", "a.cu(1): error: x")
    assert text("RuntimeError: Ninja failed", *lines).endswith(": a.cu(1): error: x (while building gemm_sm90, gemm.o)")
    later = (*lines[:2], "FAILED: other.o", "ninja: Entering directory `/x/other'", lines[2])
    assert text("RuntimeError: Ninja failed", *later).endswith("(while building gemm_sm90, gemm.o)")
    assert text("RuntimeError: Ninja failed", lines[1], "gemm.o: error: x").endswith("gemm.o: error: x")
    assert text("RuntimeError: building extension 'mla' failed", "a.cu(1): error: x").endswith("(while building mla)")


def test_a_detail_that_no_compiler_wrote_names_no_module() -> None:
    assert text("RuntimeError: building extension 'mla' raised", "first") == (
        "RuntimeError: building extension 'mla' raised: first"
    )


@given(st.integers(1, 3 * LENGTH), st.integers(1, 3 * LENGTH))
def test_a_text_is_bounded_and_says_where_it_is_cut(headline: int, reason: int) -> None:
    long, why = "h" * headline, "error: " + "r" * reason
    half = LENGTH // 2
    assert text(long) == long[:LENGTH]
    told = text(long, why)
    assert told.startswith(long if headline <= half else long[: half - 1] + "…: ")
    assert told.endswith(f": {why}" if len(why) <= half else f": {why[: half - 1]}…")


def test_an_assertion_of_a_kernel_is_told_without_its_thread() -> None:
    line = "/x/Indexing.cu:1290: indexSelect: block: [1,0,0], thread: [3,0,0] Assertion `i < n` failed."
    assert asserted(line) == "/x/Indexing.cu:1290: Assertion `i < n` failed."
    assert asserted("no such thing") == ""


def test_an_echo_of_a_compiler_names_what_was_built_too() -> None:
    told = text("RuntimeError: building extension 'mla' failed", "collect2: error: ld returned 1 exit status")
    assert told.endswith(": collect2: error: ld returned 1 exit status (while building mla)")


def test_a_text_of_just_the_room_there_is_is_not_cut() -> None:
    assert text("h" * 250, "error: x") == "h" * 250 + ": error: x"
    assert text("h" * 251, "error: x") == "h" * 249 + "…: error: x"


def test_a_message_has_a_text_of_its_own_unless_its_reader_says_otherwise() -> None:
    assert not Message("ValueError: x").bare
